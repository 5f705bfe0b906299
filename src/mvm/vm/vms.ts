/**
 * @module mvm/vm/vms
 *
 * The life of every member: created with a vTPM of its own, started, watched, stopped, removed. A member is in
 * one of three states (stopped, starting or stopping, running); one change at a time.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { endProcess } from "../../platform/process.ts"
import { requireFiles } from "../../platform/qemu.ts"
import { keepConsoleLogShort } from "./console-log.ts"
import { isFollowed } from "./followed/access.ts"
import { FollowedVms } from "./followed/followed-vms.ts"
import type { Machines } from "./followed/machines.ts"
import type { VmConfig, VmRecord } from "../state/registry.ts"
import { Halts } from "./halts.ts"
import { Restarts } from "./restarts.ts"
import { Stops, requireRebootable, type StopOptions } from "./stops.ts"
import {
  clearRunState,
  endProcesses,
  firstExit,
  findLeftRunning,
  removeFiles,
  vmPaths,
  type RunState,
  type VmPaths,
} from "./vm-process.ts"
import { makeMember, type CreateOptions } from "./vm-create.ts"
import type { VmHandlers } from "./vm-handlers.ts"
import { checkVmName } from "./vm-name.ts"
import { STANDING_FIELDS, writeSettings, writeStartSettings } from "./vm-settings.ts"
import { ownMonitor, type MonitorSource, type VmMonitors } from "./vm-monitors.ts"
import { absolutePaths, qemuOptions, startLocal, startQemu, type StartParts } from "./vm-start.ts"

export interface VmManagerParts extends StartParts {
  /** Whether new vTPMs get certificates unless told otherwise: that takes most of a second. */
  readonly certificates?: boolean
  readonly log: Log
  readonly monitors: VmMonitors
  readonly handlers: VmHandlers
}

const END_RETRY_MS = 2000
const BY_OPERATOR = "stopped by the operator"

export class VmManager {
  readonly #parts: VmManagerParts
  readonly #running = new Map<string, RunState>()
  readonly #changing = new Set<string>()
  readonly #monitors: VmMonitors
  readonly #stops: Stops
  readonly #restarts = new Restarts()
  readonly #followed: FollowedVms
  readonly #halts: Halts
  #closed = false

  constructor(parts: VmManagerParts) {
    this.#parts = parts
    this.#monitors = parts.monitors
    this.#followed = new FollowedVms(parts)
    const { audit, log, handlers, monitors } = parts
    this.#stops = new Stops({
      monitors,
      ask: (record) => this.#askOtherwise(record),
      isOver: ({ uuid }, state) => this.#running.get(uuid) !== state,
    })
    const end = (record: VmRecord, state: RunState) => this.#end(record, state)
    this.#halts = new Halts({ audit, log, end, onHalt: (record, reason) => handlers.onHalt(record, reason) })
  }

  /** Those that others start. */
  get machines(): Machines {
    return this.#followed.machines
  }

  paths(record: VmRecord): VmPaths {
    return vmPaths(this.#parts.stateDir.path, record.uuid, record.name)
  }

  isRunning(uuid: string): boolean {
    return this.#running.has(uuid)
  }

  runState(uuid: string): RunState | undefined {
    return this.#running.get(uuid)
  }

  /** @throws MvmError `not_found`. */
  require(name: string): VmRecord {
    const record = this.#parts.registry.getVm(name)
    if (record) return record
    throw new MvmError("not_found", `there is no VM ${name}`, { hint: "mvm vm list shows them" })
  }

  /** Makes a VM and its vTPM. Nothing is left behind when it fails. */
  async create(options: CreateOptions): Promise<VmRecord> {
    const { registry, stateDir } = this.#parts
    const { name } = options
    checkVmName(name)
    if (registry.getVm(name)) {
      throw new MvmError("exists", `there is already a VM ${name}`, {
        hint: `mvm vm show ${name} shows it, mvm vm rm ${name} removes it`,
      })
    }
    const uuid = crypto.randomUUID()
    const paths = vmPaths(stateDir.path, uuid, name)
    const config = absolutePaths(options.config)
    // A VM that could never start is not made.
    if (options.kind === "qemu") requireFiles(qemuOptions(this.#parts, { name, uuid, config }, paths))
    return this.#changed(uuid, async () => {
      const record = await makeMember(this.#parts, { ...options, uuid, config })
      this.#parts.handlers.onCreated(record)
      if (isFollowed(record)) this.#followed.prepareLater(record)
      return record
    })
  }

  /**
   * Changes what is set of a VM: `change` holds the fields that are to be others, `tags` all tags it then has. What
   * its machine is can be changed while it is stopped; the rest at any time.
   *
   * @throws MvmError `vm_state` while it runs, `config` or `not_found` for values that it could never start with.
   */
  async configure(
    record: VmRecord,
    change: Partial<VmConfig>,
    tags: readonly string[] | undefined,
  ): Promise<void> {
    const isStanding = Object.keys(change).every((field) => STANDING_FIELDS.has(field))
    if (isStanding)
      return writeSettings(this.#parts, record, { config: { ...record.config, ...change }, change, tags })
    if (record.kind !== "qemu") {
      throw new MvmError("usage", `${record.name} is no VM that the MVM starts: it has no such settings`)
    }
    if (this.#running.has(record.uuid)) {
      throw new MvmError("vm_state", `${record.name} is running`, { hint: `mvm vm stop ${record.name}` })
    }
    await this.#changed(record.uuid, () => {
      return writeStartSettings(this.#parts, { record, paths: this.paths(record) }, change, tags)
    })
  }

  /** Starts a QEMU VM, or makes a local endpoint ready for its agent. */
  async start(record: VmRecord): Promise<void> {
    if (this.#running.has(record.uuid)) {
      throw new MvmError("vm_state", `${record.name} is already running`, {
        hint: `mvm vm wait ${record.name} waits for its agent`,
      })
    }
    await this.#changed(record.uuid, () => this.#start(record))
  }

  /**
   * A process connected to the link of a VM whose QEMU others start. @returns whether it is its QEMU, in a boot that
   * the MVM can vouch for
   */
  async linkOpened(record: VmRecord, pid: number): Promise<boolean> {
    const known = this.#running.get(record.uuid)
    if (known) return known.qemu?.pid === pid && this.#halts.reasonOf(known) === undefined
    const state = await this.#followed.connected(record, pid)
    if (!state) return false
    this.#watch(record, state)
    this.#parts.handlers.onStarted(record, state.resetCount, false)
    return true
  }

  /** Why the QEMU at the link of a VM that others start is not taken for a boot of it. */
  refusalOf(uuid: string): string | undefined {
    return this.#followed.refusalOf(uuid)
  }

  /** Ends a member whose TPM is not what the MVM started, at once and until somebody starts it again. */
  halt(record: VmRecord, reason: string): void {
    const state = this.#running.get(record.uuid)
    if (state) this.#halts.begin(record, state, reason)
  }

  /**
   * Shuts the guest down; a local endpoint's vTPM ends at once.
   *
   * @throws MvmError `vm_state`; as {@link Stops.shutDown}, and it runs on then; where it is ended at once, as whoever
   *   runs it.
   */
  async stop(record: VmRecord, { force = false, timeoutMs }: StopOptions = {}): Promise<void> {
    const state = this.#running.get(record.uuid)
    const wasWaiting = this.#restarts.cancel(record.uuid)
    if (!state && wasWaiting) return
    if (!state) throw new MvmError("vm_state", `${record.name} is not running`)
    await this.#stops.during(state, async () => {
      if (!force && state.qemu) return this.#stops.shutDown(record, state, timeoutMs)
      await this.#changed(record.uuid, async () => {
        await this.#end(record, state)
        this.#over(record, state, BY_OPERATOR)
      })
    })
    await this.#parts.audit.commit("vm_stop", { vm: record.name })
  }

  /** Shuts the guest down and starts it again, as a boot that begins with a checked vTPM. @throws as both; `usage`. */
  async reboot(record: VmRecord, options: StopOptions): Promise<void> {
    requireRebootable(record)
    await this.stop(record, options)
    await this.start(record)
  }

  /** Removes a stopped VM with its vTPM. Its UUID is never used again. */
  async remove(record: VmRecord): Promise<void> {
    if (this.#running.has(record.uuid)) {
      throw new MvmError("vm_state", `${record.name} is running`, { hint: `mvm vm stop ${record.name}` })
    }
    await this.#changed(record.uuid, async () => {
      if (isFollowed(record)) await this.#followed.forget(record)
      this.#parts.registry.removeVm(record.uuid)
      if (isFollowed(record)) this.machines.share()
      this.#parts.handlers.onRemoved(record)
      removeFiles(this.paths(record))
      await this.#parts.audit.commit("vm_remove", { vm: record.name, uuid: record.uuid })
    })
  }

  /** Finds the processes that an earlier life of the MVM started. */
  adopt(): void {
    for (const record of this.#parts.registry.listVms()) {
      this.#parts.handlers.onCreated(record)
      const paths = this.paths(record)
      const left = findLeftRunning(paths)
      const followed = this.#followed
      if (!left) {
        if (isFollowed(record)) followed.prepareLater(record)
        continue
      }
      if (left.whole && isFollowed(record) && !left.whole.qemu) {
        followed.keep(record, left.whole)
        continue
      }
      if (left.whole) {
        this.#watch(record, left.whole)
        this.#parts.handlers.onStarted(record, left.whole.resetCount, true)
        continue
      }
      this.#unawaited(
        "vm_exit",
        this.#changed(record.uuid, async () => {
          for (const id of left.rest) await endProcess(id)
          clearRunState(paths)
          this.#parts.handlers.onStopped(record, "it ended while no MVM was there")
          if (isFollowed(record)) followed.prepareLater(record)
        }),
      )
    }
    // The sockets are new; a QEMU that runs tries its link again.
    this.machines.share()
  }

  /** Whether processes of this member are there, or may be. */
  isThere(uuid: string): boolean {
    return this.#running.has(uuid) || this.#changing.has(uuid)
  }

  /** A local endpoint's agent starts: its vTPM starts anew with it. */
  async bootLocal(record: VmRecord): Promise<number> {
    return this.#changed(record.uuid, async () => {
      const old = this.#running.get(record.uuid)
      // What ends here is no end of the member.
      this.#running.delete(record.uuid)
      if (old) await endProcesses(old)
      const state = await startLocal(this.#parts, record)
      this.#watch(record, state)
      return state.resetCount
    })
  }

  /** Stop watching; the processes go on. */
  close(): void {
    this.#closed = true
    this.#restarts.close()
    this.#stops.close()
    this.#monitors.close()
    this.#followed.close()
  }

  async #start(record: VmRecord): Promise<void> {
    if (isFollowed(record)) return this.#followed.start(record, () => this.#running.has(record.uuid))
    const state =
      record.kind === "local" ? await startLocal(this.#parts, record) : await startQemu(this.#parts, record)
    this.#watch(record, state)
    this.#parts.handlers.onStarted(record, state.resetCount, false)
  }

  #watch(record: VmRecord, state: RunState): void {
    this.#running.set(record.uuid, state)
    let guestReset = false
    if (state.qemu) {
      void this.#monitors.watch(record, this.#monitorOf(record), {
        onReset: () => this.#unexpectedReset(record, state),
        onGuestReset: () => (guestReset = true),
        onSuspend: (what) => this.#halts.begin(record, state, `it was suspended past its firmware (${what})`),
        onPort: (isOpen) => this.#parts.handlers.onPort(record, isOpen),
      })
    }
    const leaveConsoleLog = keepConsoleLogShort(this.paths(record).consoleLog, this.#parts.log)
    this.#unawaited(
      "vm_exit",
      firstExit(state)
        .finally(leaveConsoleLog)
        .then((first) => this.#exited(record, state, first, guestReset)),
    )
  }

  async #exited(
    record: VmRecord,
    state: RunState,
    first: "qemu" | "vtpm",
    guestReset: boolean,
  ): Promise<void> {
    if (this.#closed || this.#running.get(record.uuid) !== state) return
    await this.#endAtLast(record, state)
    const halted = this.#halts.reasonOf(state)
    const itself = first === "vtpm" ? "its vTPM (swtpm) ended" : guestReset ? "guest reset" : "qemu ended"
    const isAsked = this.#stops.isAsked(state)
    const reason = halted ?? (isAsked ? BY_OPERATOR : itself)
    // Who asked for it writes it down.
    if (!this.#over(record, state, reason) || isAsked) return
    // Without its vTPM a VM can prove nothing; after a reboot of the guest it needs a new TPM boot.
    if (!halted && (first === "vtpm" || guestReset)) this.#restart(record, reason)
    await this.#parts.audit.commit("vm_exit", { vm: record.name, reason })
  }

  #restart(record: VmRecord, reason: string): void {
    // A local endpoint's vTPM starts again with its agent, and a person starts what a person stopped.
    if (record.kind === "local" || record.kind === "external" || this.#closed) return
    const delayMs = this.#restarts.schedule(record.uuid, () => {
      if (!this.#closed && this.#parts.registry.getVm(record.uuid)) {
        this.#unawaited("vm_restart_failed", this.start(record))
      }
    })
    this.#parts.log.warn("vm_restart", { vm: record.name, reason, delayMs })
  }

  /** Nobody waits for this work: what goes wrong is said. */
  #unawaited(event: string, work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#parts.log.error(event, { message: asMvmError(error).message }))
  }

  /** With -no-reboot QEMU never resets a running guest by itself; one that does is not believed. */
  #unexpectedReset(record: VmRecord, state: RunState): void {
    if (Date.now() - state.startedMs >= 2000) this.#halts.begin(record, state, "it was reset outside a start")
  }

  #end(record: VmRecord, state: RunState): Promise<void> {
    return isFollowed(record) ? this.#followed.end(record, state) : endProcesses(state)
  }

  /** Nobody else waits for what is left of it: whoever runs it is asked until all of it is gone. */
  async #endAtLast(record: VmRecord, state: RunState): Promise<void> {
    while (!this.#closed) {
      try {
        return await this.#end(record, state)
      } catch (error) {
        this.#parts.log.error("vm_end", { vm: record.name, message: asMvmError(error).message })
        await Bun.sleep(END_RETRY_MS)
      }
    }
  }

  #monitorOf(record: VmRecord): MonitorSource {
    return isFollowed(record) ? this.#followed.monitorOf(record) : ownMonitor(this.paths(record).qmp)
  }

  /** Not every guest can be asked but through its monitor. */
  async #askOtherwise(record: VmRecord): Promise<void> {
    if (isFollowed(record)) return this.#followed.machine(record).shutdown()
    throw new MvmError("unreachable", "its monitor does not answer")
  }

  /** @returns false where others noticed it before */
  #over(record: VmRecord, state: RunState, reason: string): boolean {
    if (this.#running.get(record.uuid) !== state) return false
    this.#running.delete(record.uuid)
    this.#monitors.drop(record.uuid)
    clearRunState(this.paths(record))
    this.#parts.handlers.onStopped(record, reason)
    if (isFollowed(record)) this.#followed.prepareLater(record)
    return true
  }

  async #changed<T>(uuid: string, work: () => Promise<T>): Promise<T> {
    if (this.#changing.has(uuid)) {
      throw new MvmError("vm_state", "another change of this VM is under way", { hint: "try again" })
    }
    this.#changing.add(uuid)
    try {
      return await work()
    } finally {
      this.#changing.delete(uuid)
    }
  }
}
