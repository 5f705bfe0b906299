/**
 * @module mvm/vm/vms
 *
 * The life of every member: created with a vTPM of its own, started, watched, stopped, removed. A member is in
 * one of three states (stopped, starting or stopping, running); one change at a time.
 */

import { existsSync, rmSync } from "node:fs"
import { resolve } from "node:path"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { endProcess, isRunning } from "../../platform/process.ts"
import { requireFiles } from "../../platform/qemu.ts"
import { boundConsoleLog } from "./console-log.ts"
import type { VmConfig, VmRecord } from "../state/registry.ts"
import { Restarts } from "./restarts.ts"
import {
  clearRunState,
  endProcesses,
  firstExit,
  findLeftRunning,
  vmPaths,
  type RunState,
  type VmPaths,
} from "./vm-process.ts"
import { checkVmName } from "./vm-name.ts"
import type { VmMonitors } from "./vm-monitors.ts"
import {
  absolutePaths,
  copyFirmwareVars,
  qemuOptions,
  startLocal,
  startQemu,
  type StartParts,
} from "./vm-start.ts"
import { caDirectory, keepCertificates } from "./vm-certificates.ts"
import { createWithCertificate } from "../vtpm/certificate.ts"
import { provisionVtpm } from "../vtpm/provision.ts"

export interface VmHandlers {
  onCreated(record: VmRecord): void
  /** The member's processes run: keep a link to it. `adopted`: they ran before this MVM did. */
  onStarted(record: VmRecord, resetCount: number, adopted: boolean): void
  /** Its processes are gone. */
  onStopped(record: VmRecord, reason: string): void
  onRemoved(record: VmRecord): void
  /** A process in the VM opened the link's port, or let go of it. */
  onPort(record: VmRecord, isOpen: boolean): void
}

export interface VmManagerParts extends StartParts {
  /** Whether new vTPMs get certificates unless told otherwise: that takes most of a second. */
  readonly certificates?: boolean
  readonly log: Log
  readonly monitors: VmMonitors
  readonly handlers: VmHandlers
}

/** Settings that say how a VM is judged, not how it starts. */
const JUDGEMENT_FIELDS = new Set(["remeasureSeconds", "violations"])

/** How long a guest has for an orderly shutdown. */
const SHUTDOWN_GRACE_MS = 15_000

/** Between two looks at the length of a console's log. */
const BOUND_MS = 2000

export interface CreateOptions {
  readonly name: string
  readonly kind: VmRecord["kind"]
  readonly config: VmConfig
  readonly tags: readonly string[]
  /** With endorsement keys and certificates for them; undefined: as the manager is set. */
  readonly certificate?: boolean | undefined
}

export class VmManager {
  readonly #parts: VmManagerParts
  readonly #running = new Map<string, RunState>()
  readonly #changing = new Set<string>()
  readonly #monitors: VmMonitors
  /** VMs that end because they were told to. */
  readonly #stopping = new Set<string>()
  readonly #restarts = new Restarts()
  #closed = false

  constructor(parts: VmManagerParts) {
    this.#parts = parts
    this.#monitors = parts.monitors
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
    const { registry, stateDir, audit } = this.#parts
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
      try {
        const place = { stateDir: paths.vtpmState, runDir: paths.run, stateKey: stateDir.vmStateKey(uuid) }
        if (options.certificate ?? this.#parts.certificates) {
          const caDir = caDirectory(stateDir.path)
          const made = await createWithCertificate({ ...place, caDir, vmId: uuid })
          keepCertificates(paths.certificates, made)
        }
        const provisioned = await provisionVtpm({ ...place, mvmPublicKey: stateDir.identity.publicKey })
        if (config.firmware === "ovmf") copyFirmwareVars(paths)
        const record: VmRecord = {
          uuid,
          name,
          kind: options.kind,
          config,
          ...provisioned,
          tags: [...options.tags],
          createdMs: Date.now(),
        }
        registry.insertVm(record)
        await audit.commit("vm_create", { vm: name, uuid, vmKind: options.kind })
        this.#parts.handlers.onCreated(record)
        return record
      } catch (error) {
        // Nor is one that no audit row tells of.
        this.#unharmed("vm_create", () => registry.getVm(uuid) && registry.removeVm(uuid))
        if (!registry.getVm(uuid)) {
          rmSync(paths.run, { recursive: true, force: true })
          rmSync(resolve(paths.vtpmState, ".."), { recursive: true, force: true })
        }
        throw error
      }
    })
  }

  /**
   * Changes what is set of a VM: `change` holds the fields that are to be others, `tags` all tags it then has. How
   * it starts can be changed while it is stopped; how it is judged, at any time.
   *
   * @throws MvmError `vm_state` while it runs, `config` or `not_found` for values that it could never start with.
   */
  async configure(
    record: VmRecord,
    change: Partial<VmConfig>,
    tags: readonly string[] | undefined,
  ): Promise<void> {
    const judged = Object.keys(change).every((field) => JUDGEMENT_FIELDS.has(field))
    if (judged) return this.#reconfigure(record, { ...record.config, ...change }, change, tags)
    if (record.kind !== "qemu") {
      throw new MvmError("usage", `${record.name} is no VM that the MVM starts: it has no such settings`)
    }
    if (this.#running.has(record.uuid)) {
      throw new MvmError("vm_state", `${record.name} is running`, { hint: `mvm vm stop ${record.name}` })
    }
    await this.#changed(record.uuid, async () => {
      const config = absolutePaths({ ...record.config, ...change })
      requireFiles(qemuOptions(this.#parts, { ...record, config }, this.paths(record)))
      const paths = this.paths(record)
      if (config.firmware === "ovmf" && !existsSync(paths.firmwareVars)) copyFirmwareVars(paths)
      await this.#reconfigure(record, config, change, tags)
    })
  }

  async #reconfigure(
    { uuid, name }: VmRecord,
    config: VmConfig,
    change: Partial<VmConfig>,
    tags: readonly string[] | undefined,
  ): Promise<void> {
    const { registry, audit } = this.#parts
    registry.database.transaction(() => {
      registry.updateConfig(uuid, config)
      if (tags) registry.setTags(uuid, tags)
    })
    await audit.commit("vm_set", { vm: name, ...change, ...(tags && { tags: [...tags] }) })
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

  /** @param force end QEMU at once instead of asking the guest to shut down */
  async stop(record: VmRecord, force: boolean): Promise<void> {
    const state = this.#running.get(record.uuid)
    const wasWaiting = this.#restarts.cancel(record.uuid)
    if (!state && wasWaiting) return
    if (!state) throw new MvmError("vm_state", `${record.name} is not running`)
    await this.#changed(record.uuid, async () => {
      this.#stopping.add(record.uuid)
      if (!force && state.qemu && (await this.#monitors.powerdown(record.uuid))) {
        const deadline = Date.now() + SHUTDOWN_GRACE_MS
        while (isRunning(state.qemu) && Date.now() < deadline) await Bun.sleep(100)
      }
      await endProcesses(state)
      this.#over(record, state, "stopped by the operator")
    })
    await this.#parts.audit.commit("vm_stop", { vm: record.name })
  }

  /** Removes a stopped VM with its vTPM. Its UUID is never used again. */
  async remove(record: VmRecord): Promise<void> {
    if (this.#running.has(record.uuid)) {
      throw new MvmError("vm_state", `${record.name} is running`, { hint: `mvm vm stop ${record.name}` })
    }
    await this.#changed(record.uuid, async () => {
      const paths = this.paths(record)
      this.#parts.registry.removeVm(record.uuid)
      this.#parts.handlers.onRemoved(record)
      rmSync(paths.run, { recursive: true, force: true })
      rmSync(resolve(paths.vtpmState, ".."), { recursive: true, force: true })
      for (const file of [paths.consoleLog, paths.qemuLog]) rmSync(file, { force: true })
      await this.#parts.audit.commit("vm_remove", { vm: record.name, uuid: record.uuid })
    })
  }

  /** Finds the processes that an earlier life of the MVM started. */
  adopt(): void {
    for (const record of this.#parts.registry.listVms()) {
      this.#parts.handlers.onCreated(record)
      const paths = this.paths(record)
      const left = findLeftRunning(paths)
      if (!left) continue
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
        }),
      )
    }
  }

  /** Whether processes of this member are there, or may be. */
  isThere(uuid: string): boolean {
    return this.#running.has(uuid) || this.#changing.has(uuid)
  }

  /** A local endpoint's agent starts: its vTPM starts anew with it. */
  async bootLocal(record: VmRecord): Promise<number> {
    return this.#changed(record.uuid, async () => {
      const old = this.#running.get(record.uuid)
      if (old) {
        this.#stopping.add(record.uuid)
        await endProcesses(old)
        this.#running.delete(record.uuid)
      }
      const state = await startLocal(this.#parts, record)
      this.#watch(record, state)
      return state.resetCount
    })
  }

  /** Stop watching; the processes go on. */
  close(): void {
    this.#closed = true
    this.#restarts.close()
    this.#monitors.close()
  }

  async #start(record: VmRecord): Promise<void> {
    const state =
      record.kind === "local" ? await startLocal(this.#parts, record) : await startQemu(this.#parts, record)
    this.#watch(record, state)
    this.#parts.handlers.onStarted(record, state.resetCount, false)
  }

  #watch(record: VmRecord, state: RunState): void {
    this.#running.set(record.uuid, state)
    this.#stopping.delete(record.uuid)
    let guestReset = false
    if (state.qemu) {
      void this.#monitors.watch(record, this.paths(record).qmp, {
        onReset: () => this.#unexpectedReset(record),
        onGuestReset: () => (guestReset = true),
        onPort: (isOpen) => this.#parts.handlers.onPort(record, isOpen),
      })
    }
    const consoleLog = this.paths(record).consoleLog
    const bounding = setInterval(
      () => this.#unharmed("console_log", () => boundConsoleLog(consoleLog)),
      BOUND_MS,
    )
    bounding.unref()
    this.#unawaited(
      "vm_exit",
      firstExit(state)
        .finally(() => clearInterval(bounding))
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
    if (this.#stopping.has(record.uuid)) return
    await endProcesses(state)
    const reason = first === "vtpm" ? "its vTPM (swtpm) ended" : guestReset ? "guest reset" : "qemu ended"
    this.#over(record, state, reason)
    // Without its vTPM a VM can prove nothing; after a reboot of the guest it needs a new TPM boot.
    if (first === "vtpm" || guestReset) this.#restart(record, reason)
    await this.#parts.audit.commit("vm_exit", { vm: record.name, reason })
  }

  #restart(record: VmRecord, reason: string): void {
    // A local endpoint's vTPM starts again with its agent.
    if (record.kind === "local" || this.#closed) return
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

  #unharmed(event: string, work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#parts.log.warn(event, { message: asMvmError(error).message })
    }
  }

  /** With -no-reboot QEMU never resets a running guest by itself; one that does is not believed. */
  #unexpectedReset(record: VmRecord): void {
    const state = this.#running.get(record.uuid)
    if (!state || Date.now() - state.startedMs < 2000) return
    this.#parts.log.error("vm_reset", {
      vm: record.name,
      message: "reset outside a start: the VM is stopped",
    })
    this.#unawaited("vm_reset", endProcesses(state))
  }

  #over(record: VmRecord, state: RunState, reason: string): void {
    if (this.#running.get(record.uuid) !== state) return
    this.#running.delete(record.uuid)
    clearRunState(this.paths(record))
    this.#parts.handlers.onStopped(record, reason)
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
