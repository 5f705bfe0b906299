/**
 * @module mvm/vm/vm-process
 *
 * The processes of one running member: swtpm, and QEMU unless it is a local endpoint. They outlive the MVM: what
 * is needed to find them again is in a file beside their sockets.
 */

import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import {
  endProcess,
  identifyProcess,
  isRunning,
  waitForExit,
  type ProcessId,
} from "../../platform/process.ts"

/** Where the sockets and files of one VM are. */
export interface VmPaths {
  readonly run: string
  readonly vtpmState: string
  readonly link: string
  readonly qmp: string
  readonly console: string
  readonly consoleLog: string
  readonly qemuLog: string
  readonly vtpmControl: string
  readonly vtpmData: string
  readonly firmwareVars: string
  /** Directory; not there for a vTPM without certificates. */
  readonly certificates: string
}

/** What survives a restart of the MVM. */
export interface RunState {
  readonly vtpm: ProcessId
  readonly qemu: ProcessId | undefined
  /** The resetCount that this boot's quotes must show. */
  readonly resetCount: number
  readonly startedMs: number
}

export function vmPaths(stateDirectory: string, uuid: string, name: string): VmPaths {
  const run = join(stateDirectory, "run", name)
  const own = join(stateDirectory, "vms", uuid)
  return {
    run,
    vtpmState: join(own, "vtpm"),
    link: join(run, "link.sock"),
    qmp: join(run, "qmp.sock"),
    console: join(run, "console.sock"),
    consoleLog: join(stateDirectory, "logs", `${name}-console.log`),
    qemuLog: join(stateDirectory, "logs", `${name}-qemu.log`),
    vtpmControl: join(run, "tpm.ctrl"),
    vtpmData: join(run, "tpm.sock"),
    firmwareVars: join(own, "firmware-vars.fd"),
    certificates: join(own, "certificates"),
  }
}

/** @throws MvmError `internal` when a process ended before it could be identified. */
export function processId(pid: number, what: string): ProcessId {
  const id = identifyProcess(pid)
  if (!id) throw new MvmError(what === "qemu" ? "qemu" : "swtpm", `${what} ended at its start`)
  return id
}

export function saveRunState(paths: VmPaths, state: RunState): void {
  mkdirSync(paths.run, { recursive: true, mode: 0o700 })
  const file = join(paths.run, "run.json")
  writeFileSync(`${file}.new`, JSON.stringify(state), { mode: 0o600 })
  renameSync(`${file}.new`, file)
}

/** The run state of processes that still run; stale files are removed. */
export function loadRunState(paths: VmPaths): RunState | undefined {
  let state: RunState
  try {
    state = JSON.parse(readFileSync(join(paths.run, "run.json"), "utf8")) as RunState
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined
    throw new MvmError("state", `cannot read ${join(paths.run, "run.json")}`, {
      cause: error,
      hint: "stop the VM's qemu and swtpm by hand, then remove that file",
    })
  }
  return state
}

export function clearRunState(paths: VmPaths): void {
  rmSync(join(paths.run, "run.json"), { force: true })
}

/** Ends what still runs: QEMU first, so that it never sees its TPM go away. */
export async function endProcesses(state: RunState): Promise<void> {
  if (state.qemu) await endProcess(state.qemu)
  await endProcess(state.vtpm)
}

/** Resolves when QEMU (for a local endpoint: swtpm) has ended, with what went first. */
export async function firstExit(state: RunState): Promise<"qemu" | "vtpm"> {
  const over = async (id: ProcessId, what: "qemu" | "vtpm"): Promise<"qemu" | "vtpm"> => {
    await waitForExit(id)
    return what
  }
  const exits = [over(state.vtpm, "vtpm")]
  if (state.qemu) exits.push(over(state.qemu, "qemu"))
  const first = await Promise.race(exits)
  // A clean end of QEMU ends swtpm too, within the same poll.
  return state.qemu && !isRunning(state.qemu) ? "qemu" : first
}
