/**
 * @module platform/process
 *
 * Other processes by (pid, start time): a pid alone may be another process by now. Used to find QEMU and swtpm
 * again after the MVM itself was restarted, and to end exactly what the MVM started.
 */

import { readFileSync } from "node:fs"

/** A process that cannot be mistaken for a later one with the same pid. */
export interface ProcessId {
  readonly pid: number
  /** Clock ticks after boot, field 22 of /proc/PID/stat. */
  readonly startTicks: string
}

/** The identity of a running process, or undefined when there is none (a zombie counts as none). */
export function identifyProcess(pid: number): ProcessId | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1")
  } catch {
    return undefined
  }
  // The command name may hold spaces and parentheses; the fields start behind its last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  const startTicks = fields[19]
  if (fields[0] === "Z" || startTicks === undefined) return undefined
  return { pid, startTicks }
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

/** SIGTERM, then SIGKILL after `graceMs`; resolves when the process is gone. */
export async function endProcess(id: ProcessId, graceMs = 3000): Promise<void> {
  if (!signalProcess(id, "SIGTERM")) return
  const deadline = Date.now() + graceMs
  while (isRunning(id) && Date.now() < deadline) await Bun.sleep(20)
  if (signalProcess(id, "SIGKILL")) while (isRunning(id)) await Bun.sleep(20)
}
