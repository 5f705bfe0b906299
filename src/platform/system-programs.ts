/**
 * @module platform/system-programs
 *
 * Programs of the system that put installed files in force: run one after another on the system that runs, each
 * outcome said. A failure ends nothing, since the files are there and the rest may still work.
 */

import { existsSync, readFileSync } from "node:fs"
import type { Step } from "./installation.ts"

const TIME_LIMIT_MS = 120_000

export interface SystemProgram {
  readonly argv: readonly [string, ...string[]]
  /** A reason not to run it now. */
  readonly unless?: string | undefined
}

/** Whether systemd is the first process of this system. @spec sd_booted(3) */
export function hasSystemd(): boolean {
  return existsSync("/run/systemd/system")
}

/** Whether the system's databases have the group, and how many members it was given. */
export function groupMembers(name: string): readonly string[] | undefined {
  const line = readText("/etc/group")
    .split("\n")
    .find((entry) => entry.startsWith(`${name}:`))
  return line?.split(":")[3]?.split(",").filter(Boolean)
}

export function runPrograms(programs: readonly SystemProgram[], dryRun = false): Step[] {
  return programs.map(({ argv, unless }): Step => {
    const subject = argv.join(" ")
    if (unless !== undefined) return { action: "skipped", subject, reason: unless }
    if (Bun.which(argv[0]) === null) return { action: "skipped", subject, reason: `no ${argv[0]} here` }
    if (dryRun) return { action: "ran", subject }
    const child = Bun.spawnSync([...argv], {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: TIME_LIMIT_MS,
    })
    if (child.exitCode === 0) return { action: "ran", subject }
    const said = child.stderr.toString().trim().split("\n").at(-1)
    return { action: "failed", subject, reason: said || `status ${child.exitCode}` }
  })
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}
