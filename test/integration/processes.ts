/** @module test/integration/processes */

import { readFileSync, readdirSync } from "node:fs"

/** Processes whose command line names `folder`, which is this host's alone. */
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
