/**
 * @module platform/process
 *
 * Other processes by (pid, start time): a pid alone may be another process by now. Used to find QEMU and swtpm
 * again after the MVM itself was restarted, and to end exactly what the MVM started.
 */

import { readFileSync, readdirSync } from "node:fs"
import { basename } from "node:path"
import { MvmError } from "../lib/errors.ts"

const TICKS_PER_SECOND = 100
/** starttime, field 22; the first field kept is the third. */
const START_TIME = 19
/** startcode, startstack, arg_start, env_start: fields 26, 28, 48, 50 */
const LAYOUT = [23, 25, 45, 47]

/** A process that cannot be mistaken for a later one with the same pid. */
export interface ProcessId {
  readonly pid: number
  /** Clock ticks after boot, field 22 of /proc/PID/stat. */
  readonly startTicks: string
}

/** A process in the life of one program: an exec makes it another. */
export interface ProcessImage extends ProcessId {
  /** Where the kernel put the program's stack, arguments and environment: random again at every exec. */
  readonly layout: string
}

/** The identity of a running process, or undefined when there is none (a zombie counts as none). */
export function identifyProcess(pid: number): ProcessId | undefined {
  const startTicks = statFields(pid)?.[START_TIME]
  return startTicks === undefined ? undefined : { pid, startTicks }
}

/**
 * The process and the program it runs now, or undefined when there is none. Another user's layout reads as zeros
 * for who may not trace it; then an exec does not show here.
 *
 * @spec proc(5), /proc/PID/stat
 */
export function identifyImage(pid: number): ProcessImage | undefined {
  const fields = statFields(pid)
  const startTicks = fields?.[START_TIME]
  if (!fields || startTicks === undefined) return undefined
  return { pid, startTicks, layout: LAYOUT.map((index) => fields[index]).join(" ") }
}

/** Fields of /proc/PID/stat from the third on; none for a zombie. */
function statFields(pid: number): string[] | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1")
  } catch {
    return undefined
  }
  // The command name may hold spaces and parentheses; the fields start behind its last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return fields[0] === "Z" ? undefined : fields
}

/** Now, as {@link ProcessId}'s `startTicks` counts. @spec proc(5), /proc/uptime; USER_HZ is 100 on Linux's machines */
export function nowTicks(): number {
  return Math.floor(Number(readFileSync("/proc/uptime", "latin1").split(" ")[0]) * TICKS_PER_SECOND)
}

/** When the process began, ms since 1970. */
export function startedAtMs(id: ProcessId): number {
  return Date.now() - ((nowTicks() - Number(id.startTicks)) * 1000) / TICKS_PER_SECOND
}

/** The words that the process was started with. @throws MvmError `io` when it is gone, or hides them. */
export function commandLineOf(id: ProcessId): string[] {
  try {
    const words = readFileSync(`/proc/${id.pid}/cmdline`, "utf8").split("\0").slice(0, -1)
    if (isRunning(id) && words.length > 0) return words
  } catch (cause) {
    throw new MvmError("io", `process ${id.pid}: its command line cannot be read`, { cause })
  }
  throw new MvmError("io", `process ${id.pid}: it is gone`)
}

export function isRunning(id: ProcessId): boolean {
  return identifyProcess(id.pid)?.startTicks === id.startTicks
}

/** Send `signal` if that very process still runs. */
export function signalProcess(id: ProcessId, signal: NodeJS.Signals): boolean {
  if (!isRunning(id)) return false
  try {
    process.kill(id.pid, signal)
    return true
  } catch {
    return false
  }
}

/** Resolves once the process is gone; checks every `periodMs`. Waiting does not keep this process itself alive. */
export function waitForExit(id: ProcessId, periodMs = 200): Promise<void> {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (isRunning(id)) return
      clearInterval(timer)
      resolve()
    }, periodMs)
    timer.unref()
  })
}

/**
 * Running processes of a program whose name begins with `program` that have `text` in an argument. Those of other
 * users, whose arguments may be hidden, are left out.
 */
export function processesTold(program: string, text: string): ProcessId[] {
  const found: ProcessId[] = []
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || !isTold(pid, program, text)) continue
    const id = identifyProcess(pid)
    if (id) found.push(id)
  }
  return found
}

function isTold(pid: number, program: string, text: string): boolean {
  try {
    const [name = "", ...rest] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")
    return basename(name).startsWith(program) && rest.some((argument) => argument.includes(text))
  } catch {
    return false
  }
}

/** SIGTERM, then SIGKILL after `graceMs`; resolves when the process is gone. */
export async function endProcess(id: ProcessId, graceMs = 3000): Promise<void> {
  if (!signalProcess(id, "SIGTERM")) return
  const deadline = Date.now() + graceMs
  while (isRunning(id) && Date.now() < deadline) await Bun.sleep(20)
  if (signalProcess(id, "SIGKILL")) while (isRunning(id)) await Bun.sleep(20)
}
