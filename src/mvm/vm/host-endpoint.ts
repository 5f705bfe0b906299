/**
 * @module mvm/vm/host-endpoint
 *
 * The host as a member of its own: a local endpoint named `host`, made when it is first used. Policy and measurement
 * hold for it as for any other. Its agent is a child of the MVM, started again when it fails, and ended with the MVM.
 *
 * ```
 *              use                        linked
 *   absent ──────────► starting ─────────────────────► running
 *                          ▲                              │
 *                          │ after a while that grows     │ exit
 *                          └────────────── failed ◄───────┤
 *                     use                                 │ exit with status 0: the operator stopped it
 *   stopped ◄─────────────────────────────────────────────┘
 * ```
 */

import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { endProcess, identifyProcess, type ProcessId } from "../../platform/process.ts"
import { selfCommand } from "../../platform/self-command.ts"
import type { Hub } from "../hub.ts"
import type { Registry, VmConfig, VmRecord } from "../state/registry.ts"
import { Restarts } from "./restarts.ts"
import { HOST_NAME } from "./vm-name.ts"
import type { VmManager } from "./vms.ts"

const LINK_MS = 30_000
const POLL_MS = 20
const ANSWER_MS = 5000
const AGENT_FILE = "agent.json"

const CONFIG: VmConfig = {
  memoryMiB: 1,
  cpus: 1,
  net: "none",
  firmware: "seabios",
  machine: "pc",
  remeasureSeconds: 30,
}

export interface HostEndpointParts {
  /** The MVM's state directory */
  readonly state: string
  readonly vms: VmManager
  readonly hub: Hub
  readonly registry: Registry
  readonly log: Log
}

export class HostEndpoint {
  readonly #parts: HostEndpointParts
  readonly #restarts = new Restarts()
  #agent: Bun.Subprocess | undefined
  #making: Promise<VmRecord> | undefined
  #starting: Promise<void> | undefined
  #closed = false

  constructor(parts: HostEndpointParts) {
    this.#parts = parts
  }

  /**
   * Resolves when the endpoint is there and its agent linked.
   *
   * @throws MvmError `exists` when a VM has the name, `no_agent` when its agent does not link.
   */
  async use(): Promise<void> {
    const record = await this.#made()
    await this.#start(record)
    const deadline = Date.now() + LINK_MS
    for (;;) {
      const member = this.#parts.hub.byUuid(record.uuid)
      if (member?.session?.isReady) {
        // The agent answers behind all that it needs for its first command.
        await member.link.request("PING", {}, "DONE", { timeoutMs: ANSWER_MS })
        return
      }
      if (Date.now() > deadline || this.#closed) break
      await Bun.sleep(POLL_MS)
    }
    throw new MvmError("no_agent", `the agent of ${HOST_NAME} did not link in time`, {
      hint: "the log of mvm serve says why",
    })
  }

  /** An endpoint that was used before is there again. */
  resume(): void {
    const record = this.#parts.registry.getVm(HOST_NAME)
    if (record?.kind === "local") this.#unawaited(this.#start(record))
  }

  /** Ends the agent and its vTPM. */
  async stop(): Promise<void> {
    this.#closed = true
    this.#restarts.close()
    const { vms, registry } = this.#parts
    await this.#endAgent()
    const record = registry.getVm(HOST_NAME)
    if (record?.kind === "local" && vms.isRunning(record.uuid)) await vms.stop(record)
  }

  /** Two who use it at once make it once. */
  #made(): Promise<VmRecord> {
    const { registry, vms } = this.#parts
    const record = registry.getVm(HOST_NAME)
    if (record) {
      if (record.kind === "local") return Promise.resolve(record)
      throw new MvmError("exists", `${HOST_NAME} names a VM, so the host itself cannot have it`, {
        hint: `mvm vm rm ${HOST_NAME}, and create that VM under another name`,
      })
    }
    this.#making ??= vms
      .create({ name: HOST_NAME, kind: "local", config: CONFIG, tags: [] })
      .finally(() => (this.#making = undefined))
    return this.#making
  }

  #start(record: VmRecord): Promise<void> {
    if (this.#agent || this.#closed) return Promise.resolve()
    this.#starting ??= this.#spawn(record).finally(() => (this.#starting = undefined))
    return this.#starting
  }

  async #spawn(record: VmRecord): Promise<void> {
    this.#restarts.cancel(record.uuid)
    // Of a life of the MVM that was killed.
    const left = readAgentFile(this.#agentFile)
    if (left) await endProcess(left)
    if (this.#closed) return
    const { level, format } = this.#parts.log.options
    const log = ["--log", level, "--log-format", format]
    const words = ["guest", "agent", "--local", HOST_NAME, "--state", this.#parts.state, ...log]
    const agent = Bun.spawn([...selfCommand(), ...words], {
      stdio: ["ignore", "ignore", "inherit"],
      // Not what this process began with: the service manager's words for the MVM are not for its children.
      env: process.env,
      // A Ctrl-C at the MVM's terminal is for the MVM, which then ends it.
      detached: true,
    })
    this.#agent = agent
    const id = identifyProcess(agent.pid)
    if (id) writeFileSync(this.#agentFile, JSON.stringify(id), { mode: 0o600 })
    void agent.exited.then(() => this.#exited(record, agent))
  }

  #exited(record: VmRecord, agent: Bun.Subprocess): void {
    if (this.#agent !== agent) return
    this.#agent = undefined
    rmSync(this.#agentFile, { force: true })
    const { log, registry } = this.#parts
    if (this.#closed || !registry.getVm(record.uuid)) return
    if (agent.exitCode === 0) return log.info("host_agent_stopped")
    const delayMs = this.#restarts.schedule(record.uuid, () => this.#unawaited(this.#start(record)))
    log.warn("host_agent_restart", { status: agent.exitCode, signal: agent.signalCode, delayMs })
  }

  async #endAgent(): Promise<void> {
    await this.#starting?.catch(() => {})
    const agent = this.#agent
    this.#agent = undefined
    if (!agent) return
    const id = identifyProcess(agent.pid)
    if (id) await endProcess(id)
    await agent.exited
    rmSync(this.#agentFile, { force: true })
  }

  get #agentFile(): string {
    return join(this.#parts.state, "run", HOST_NAME, AGENT_FILE)
  }

  #unawaited(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      this.#parts.log.error("host_agent", { message: asMvmError(error).message })
    })
  }
}

/** The agent that an earlier life of the MVM started, if it wrote it down. */
function readAgentFile(path: string): ProcessId | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as ProcessId
  } catch {
    return undefined
  }
}
