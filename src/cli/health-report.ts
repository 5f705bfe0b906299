/**
 * @module cli/health-report
 *
 * What a doctor found, as lines for people or JSON for programs, and the exit status that follows.
 */

import { STATUS } from "../lib/errors.ts"
import type { Finding } from "../lib/health.ts"
import { printable } from "../lib/log.ts"
import type { Call } from "./command.ts"
import { counted, print, printJson } from "./output.ts"

/** @returns 1 where something failed, else 0 */
export function report(call: Call, findings: readonly Finding[]): number {
  const count = (level: string): number => findings.filter((finding) => finding.level === level).length
  const failed = count("fail")
  if (call.flag("json")) printJson({ ok: failed === 0, findings })
  else {
    const width = Math.max(...findings.map(({ check }) => check.length))
    for (const { check, level, text, remedy } of findings) {
      print(printable(`${level.padEnd(4)}  ${check.padEnd(width)}  ${text}`))
      if (remedy !== undefined) print(printable(`${" ".repeat(width + 8)}remedy: ${remedy}`))
    }
    print(`${counted(count("ok"), "check")} ok, ${count("warn")} to look at, ${failed} failed`)
  }
  return failed === 0 ? STATUS.ok : STATUS.failure
}
