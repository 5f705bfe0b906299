/**
 * @module test/integration/processes
 *
 * What a test finds of the processes it started, by what is theirs alone.
 */

import { readFileSync, readdirSync } from "node:fs"

/** Processes whose command line names `folder`; not this one. */
export function processesOf(folder: string): { pid: number; line: string }[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid)
    .map((pid) => {
      try {
        return { pid, line: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ") }
      } catch {
        return { pid, line: "" }
      }
    })
    .filter(({ line }) => line.includes(folder))
}

/** Open file descriptors of a process. */
export function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}
