/**
 * @module test/mvm/in-process
 *
 * A whole MVM, and agents of local endpoints with real vTPMs, in this process: what they hold can be looked at, and
 * what they say to each other is said over real sockets.
 */

import { join } from "node:path"
import { Log } from "../../src/lib/log.ts"
import { Agent } from "../../src/guest/agent.ts"
import { localEnvironment } from "../../src/guest/environment.ts"
import type { Member } from "../../src/mvm/member.ts"
import { serve, type RunningMvm } from "../../src/mvm/serve.ts"
import type { VmRecord } from "../../src/mvm/state/registry.ts"
import { DEFAULT_LIMITS } from "../../src/mvm/deposits/quota.ts"
import type { TpmTransport } from "../../src/tpm/transport.ts"
import { sampleVm, scratchFolder } from "./scratch-state.ts"

const log = new Log({ level: (process.env["MVM_TEST_LOG"] as "debug") ?? "error", format: "text" })

export class InProcess {
  readonly state: string
  readonly running: RunningMvm
  readonly #agents = new Set<Agent>()

  private constructor(state: string, running: RunningMvm) {
    this.state = state
    this.running = running
  }

  static async start(): Promise<InProcess> {
    const folder = scratchFolder()
    const state = join(folder, "s")
    const running = await serve({
      state,
      arenaBytes: 1 << 20,
      arenaPath: join(folder, "arena"),
      dedicatedBytes: 1 << 20,
      pool: { size: 0, idleMs: 1000 },
      ringBytes: 8192,
      leaseMs: 90_000,
      deposits: DEFAULT_LIMITS,
      log,
    })
    return new InProcess(state, running)
  }

  /** A local endpoint that nobody measures unasked. */
  create(name: string): Promise<VmRecord> {
    const config = { ...sampleVm(name).config, kernel: undefined, remeasureSeconds: 3600 }
    return this.running.mvm.vms.create({ name, kind: "local", tags: [], config })
  }

  member(record: VmRecord): Member {
    return this.running.mvm.context.hub.byUuid(record.uuid)!
  }

  /** Its agent, linked, with the way to its vTPM and its local socket. */
  async agent(record: VmRecord): Promise<{ agent: Agent; tpm: TpmTransport; socketPath: string }> {
    const environment = localEnvironment(this.state, record.name)
    let tpm: TpmTransport | undefined
    const agent = await Agent.start({
      environment: {
        ...environment,
        openTpm: async (life) => (tpm = await environment.openTpm(life)),
      },
      log,
      gid: undefined,
      stopping: new AbortController().signal,
      onVtpmLost: () => {},
      onStopped: () => {},
    })
    this.#agents.add(agent)
    const member = this.member(record)
    while (!member.session?.isReady) await Bun.sleep(5)
    // The agent, too, is to know that it is linked.
    await member.link.request("PING", {}, "DONE", { timeoutMs: 5000 })
    return { agent, tpm: tpm!, socketPath: environment.socketPath }
  }

  async stop(): Promise<void> {
    for (const agent of this.#agents) agent.stop()
    const { vms, context } = this.running.mvm
    for (const record of context.registry.listVms()) {
      if (vms.isRunning(record.uuid)) await vms.stop(record)
    }
    await this.running.stop()
  }
}
