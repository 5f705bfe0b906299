/**
 * @module mvm/vm/vm-process
 *
 * The processes of one running member: swtpm, and QEMU unless it is a local endpoint. They outlive the MVM: what
 * is needed to find them again is in a file beside their sockets.
 */

import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"
import { utf8 } from "../../lib/bytes.ts"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { writeDurably } from "../../platform/durable-file.ts"
import {
  endProcess,
  identifyProcess,
  isRunning,
  processesTold,
  waitForExit,
  type ProcessId,
} from "../../platform/process.ts"

/** Beginnings of the names of programs that a member's processes run, in the order of their ending. */
const PROGRAMS = ["qemu-system", "swtpm"]

/** What QEMU may still have to do when its vTPM has ended in order: freeing its memory, for one. */
const LAST_WORK_MS = 3000
const LOOK_MS = 50

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
  readonly vtpmPid: string
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
    vtpmPid: join(run, "tpm.pid"),
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
  writeDurably(join(paths.run, "run.json"), utf8(JSON.stringify(state)))
}

/** What an earlier life of the MVM left of a member's processes. */
export interface LeftRunning {
  /** All of them, to be adopted. */
  readonly whole: RunState | undefined
  /** Otherwise what is to be ended, QEMU first. */
  readonly rest: readonly ProcessId[]
}

/**
 * Looks for them by the note beside their sockets, and where that is absent or was cut short (an MVM that died between
 * starting a process and noting it, a power cut) by what they were told: the member's own run folder.
 */
export function findLeftRunning(paths: VmPaths): LeftRunning | undefined {
  const note = readRunState(paths)
  if (note && isRunning(note.vtpm) && (!note.qemu || isRunning(note.qemu))) return { whole: note, rest: [] }
  const strays = PROGRAMS.flatMap((program) => processesTold(program, `${paths.run}/`))
  if (note === null && strays.length === 0) return undefined
  return { whole: undefined, rest: strays }
}

/** Null without a note, undefined for one that cannot be read. */
function readRunState(paths: VmPaths): RunState | null | undefined {
  try {
    const state = JSON.parse(readFileSync(join(paths.run, "run.json"), "utf8")) as RunState | null
    return state?.vtpm ? state : undefined
  } catch (error) {
    return errnoOf(error) === "ENOENT" ? null : undefined
  }
}

export function clearRunState(paths: VmPaths): void {
  rmSync(join(paths.run, "run.json"), { force: true })
}

/** All that a member leaves when it is removed. */
export function removeFiles(paths: VmPaths): void {
  for (const folder of [paths.run, resolve(paths.vtpmState, "..")]) {
    rmSync(folder, { recursive: true, force: true })
  }
  for (const file of [paths.consoleLog, paths.qemuLog]) rmSync(file, { force: true })
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
  if (!state.qemu || first === "qemu") return first
  // A clean end of QEMU ends swtpm first.
  const deadline = performance.now() + LAST_WORK_MS
  while (isRunning(state.qemu)) {
    if (performance.now() > deadline) return "vtpm"
    await Bun.sleep(LOOK_MS)
  }
  return "qemu"
}
