/**
 * @module mvm/vm/followed/followed-vms
 *
 * VMs whose QEMU others start: libvirt, or a person. Their vTPM is checked and kept ready before any QEMU is there, and
 * the QEMU that then connects to the link is known by its process.
 *
 * ```
 *             prepare                  QEMU at the link, as it should be
 *   nothing ───────────► ready ──────────────────────────────────────────► running
 *                          ▲                                                  │
 *                          └──────────────── QEMU ended: prepare ─────────────┘
 * ```
 *
 * The vTPM's socket listens all the time: a QEMU that is started while the vTPM of the last boot is still ending waits
 * there for the next one.
 *
 * One QEMU process is one boot: it ends where it would reset. What happens behind the MVM's back all the same (a QEMU
 * started twice on one ready vTPM, a reset inside) shows as a resetCount that is not the one expected, and is denied.
 */

import { closeSync, mkdirSync, rmSync, statSync } from "node:fs"
import { MvmError, asMvmError } from "../../../lib/errors.ts"
import type { Log } from "../../../lib/log.ts"
import type { LaunchFiles } from "../../../platform/launch-digest.ts"
import {
  endProcess,
  identifyProcess,
  isRunning,
  startedAtMs,
  waitForExit,
  type ProcessId,
} from "../../../platform/process.ts"
import { listenForChild } from "../../../platform/unix-address.ts"
import type { VmRecord } from "../../state/registry.ts"
import { measureLaunch } from "../launch.ts"
import type { MonitorSource } from "../vm-monitors.ts"
import { saveRunState, vmPaths, type RunState } from "../vm-process.ts"
import { startVtpmReady, type StartParts } from "../vm-start.ts"
import type { Machine } from "./machine.ts"
import { Machines } from "./machines.ts"

/** How long a machine has to bring its QEMU to the link, and to end it. */
const START_MS = 30_000
const END_MS = 20_000
const POLL_MS = 50
const RETRY_MS = 5000
/** A vTPM that ended sooner is not followed by the next at once. */
const SETTLED_MS = 1000

export interface FollowedParts extends StartParts {
  readonly log: Log
}

export class FollowedVms {
  readonly #parts: FollowedParts
  readonly #ready = new Map<string, RunState>()
  readonly #preparing = new Map<string, Promise<void>>()
  /** Descriptors that listen at the vTPMs' sockets. */
  readonly #listeners = new Map<string, number>()
  /** What was last said of a QEMU that is not as it should be: it tries again each second. */
  readonly #refusals = new Map<string, string>()
  #closed = false

  readonly machines: Machines

  constructor(parts: FollowedParts) {
    this.#parts = parts
    this.machines = new Machines(parts)
  }

  machine(record: VmRecord): Machine {
    return this.machines.of(record)
  }

  monitorOf(record: VmRecord): MonitorSource {
    const machine = this.machine(record)
    return { portId: machine.linkPortId, connect: (ended) => machine.monitor(ended) }
  }

  /** Checks the vTPM and keeps it ready for the next QEMU. @throws MvmError as the start of a vTPM. */
  async prepare(record: VmRecord): Promise<void> {
    if (this.#ready.has(record.uuid) || this.#closed) return
    let preparing = this.#preparing.get(record.uuid)
    if (!preparing) {
      preparing = this.#prepare(record).finally(() => this.#preparing.delete(record.uuid))
      this.#preparing.set(record.uuid, preparing)
    }
    await preparing
  }

  /** A vTPM that is ready already. */
  keep(record: VmRecord, state: RunState): void {
    this.#ready.set(record.uuid, state)
    this.#refusals.delete(record.uuid)
    this.machines.share()
    void waitForExit(state.vtpm).then(() => {
      if (this.#ready.get(record.uuid) !== state) return
      this.#ready.delete(record.uuid)
      const lived = Date.now() - state.startedMs
      setTimeout(() => this.#prepareAgain(record), Math.max(0, SETTLED_MS - lived)).unref()
    })
  }

  /** Why the QEMU that is there now is not taken for a boot of this VM. */
  refusalOf(uuid: string): string | undefined {
    return this.#refusals.get(uuid)
  }

  /**
   * A process connected to the link: the QEMU of a new boot, or nothing.
   *
   * @returns undefined where it is not what the MVM can vouch for; why is in the log
   */
  async connected(record: VmRecord, pid: number): Promise<RunState | undefined> {
    try {
      return await this.#take(record, pid)
    } catch (error) {
      const { code, message, hint } = asMvmError(error)
      if (this.#refusals.get(record.uuid) === message) return undefined
      this.#refusals.set(record.uuid, message)
      this.#parts.log.warn("vm_refused", { vm: record.name, code, message, hint })
      return undefined
    }
  }

  /** Asks for a start and waits for `isRunning`. @throws MvmError as the machine; `timeout`. */
  async start(record: VmRecord, isThere: () => boolean): Promise<void> {
    await this.prepare(record)
    await this.machine(record).start()
    const deadline = performance.now() + START_MS
    while (!isThere()) {
      if (performance.now() > deadline) {
        const why = this.#refusals.get(record.uuid)
        if (why !== undefined) throw new MvmError("vm_state", why)
        throw new MvmError("timeout", `${record.name} was started, but its QEMU is not at the link`, {
          hint: "see the log of mvm serve, and libvirt's log of the domain",
        })
      }
      await Bun.sleep(POLL_MS)
    }
  }

  /** Ends QEMU, and its vTPM with it. @throws MvmError as the machine. */
  async end(record: VmRecord, { qemu, vtpm }: RunState): Promise<void> {
    if (qemu && isRunning(qemu)) {
      let refusal: unknown
      await this.machine(record)
        .destroy(qemu)
        .catch((error: unknown) => (refusal = error))
      // One that was ending already cannot be asked any more.
      const deadline = performance.now() + END_MS
      while (isRunning(qemu)) {
        if (performance.now() > deadline) {
          throw refusal ?? new MvmError("timeout", `the QEMU of ${record.name} does not end`)
        }
        await Bun.sleep(POLL_MS)
      }
    }
    await endProcess(vtpm)
  }

  /** The VM is no member any more. */
  async forget(record: VmRecord): Promise<void> {
    await this.#preparing.get(record.uuid)?.catch(() => {})
    const state = this.#ready.get(record.uuid)
    this.#ready.delete(record.uuid)
    this.#refusals.delete(record.uuid)
    this.#unlisten(record)
    if (state) await endProcess(state.vtpm)
  }

  /** The next QEMU may come at any time. */
  prepareLater(record: VmRecord): void {
    this.#prepareAgain(record)
  }

  /** The vTPMs that are ready stay, and so do their sockets. */
  close(): void {
    this.#closed = true
    for (const fd of this.#listeners.values()) closeSync(fd)
    this.#listeners.clear()
    this.machines.close()
  }

  async #prepare(record: VmRecord): Promise<void> {
    const { stateDir } = this.#parts
    try {
      let listener = this.#listeners.get(record.uuid)
      if (listener === undefined) {
        mkdirSync(vmPaths(stateDir.path, record.uuid, record.name).run, { recursive: true, mode: 0o700 })
        listener = listenForChild(vmPaths(stateDir.path, record.uuid, record.name).vtpmControl)
        this.#listeners.set(record.uuid, listener)
        this.machines.share()
      }
      this.keep(record, await startVtpmReady(this.#parts, record, listener))
    } catch (error) {
      // Nobody is to wait for what does not come.
      this.#unlisten(record)
      throw error
    }
  }

  #unlisten({ uuid, name }: VmRecord): void {
    const listener = this.#listeners.get(uuid)
    if (listener === undefined) return
    this.#listeners.delete(uuid)
    closeSync(listener)
    rmSync(vmPaths(this.#parts.stateDir.path, uuid, name).vtpmControl, { force: true })
  }

  #prepareAgain(record: VmRecord): void {
    if (this.#closed || !this.#parts.registry.getVm(record.uuid)) return
    this.prepare(record).catch((error: unknown) => {
      this.#parts.log.error("vtpm_ready", { vm: record.name, message: asMvmError(error).message })
      setTimeout(() => this.#prepareAgain(record), RETRY_MS).unref()
    })
  }

  async #take(record: VmRecord, pid: number): Promise<RunState> {
    const { registry, audit, stateDir } = this.#parts
    await this.#preparing.get(record.uuid)
    const ready = this.#ready.get(record.uuid)
    const qemu = identifyProcess(pid)
    if (!qemu) throw new MvmError("vm_state", `process ${pid} at the link of ${record.name} is gone`)
    if (!ready) {
      throw new MvmError(
        "vm_state",
        `the QEMU of ${record.name} began without a vTPM that the MVM had checked`,
        {
          hint: `mvm vm stop ${record.name} --force, then start it again`,
        },
      )
    }
    const machine = this.machine(record)
    const files = await machine.inspect(qemu)
    requireUnchanged(files, qemu)
    const launch = await measureLaunch(files)
    if (this.#ready.get(record.uuid) !== ready)
      throw new MvmError("vm_state", `the vTPM of ${record.name} is gone`)
    const state: RunState = { ...ready, qemu, startedMs: Date.now() }
    saveRunState(vmPaths(stateDir.path, record.uuid, record.name), state)
    this.#ready.delete(record.uuid)
    this.#refusals.delete(record.uuid)
    registry.trust.recordLaunch(record.uuid, launch, Date.now())
    await audit.commit("vm_start", { vm: record.name, by: machine.startedBy, ...launch.digests })
    return state
  }
}

/** What is measured now must be what QEMU read when it began. @throws MvmError `vm_state`, `not_found`. */
function requireUnchanged(files: LaunchFiles, qemu: ProcessId): void {
  const startedMs = startedAtMs(qemu)
  for (const path of [files.qemu, files.firmware, files.kernel, files.initrd]) {
    const changedMs = path && statSync(path, { throwIfNoEntry: false })?.mtimeMs
    if (!changedMs || changedMs < startedMs) continue
    throw new MvmError("vm_state", `${path} was changed after its QEMU had been started`)
  }
}
