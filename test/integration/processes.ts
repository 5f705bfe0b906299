/**
 * @module test/integration/processes
 *
 * What a test finds of the processes it started, by what is theirs alone.
 */

import { readFileSync, readdirSync } from "node:fs"
import { join } from "node:path"

/** Processes whose command line names `folder`; not this one. */
export function processesOf(folder: string): { pid: number; line: string }[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid)
    .map((pid) => ({ pid, line: procFile(`${pid}/cmdline`).toString().replaceAll("\0", " ") }))
    .filter(({ line }) => line.includes(folder))
}

/** A file of /proc; empty once the process, the thread or the descriptor it tells of is gone. */
export function procFile(path: string): Buffer {
  try {
    return readFileSync(join("/proc", path))
  } catch {
    return Buffer.alloc(0)
  }
}

/** Anonymous memory of a process, MiB; 0 once it has ended. */
export function anonymousMib(pid: number): number {
  const found = /^RssAnon:\s+(\d+) kB$/m.exec(procFile(`${pid}/status`).toString())
  return Number(found?.[1] ?? 0) / 1024
}

/** Open file descriptors of a process. */
export function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}
