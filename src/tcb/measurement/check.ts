/**
 * @module tcb/measurement/check
 *
 * One thing that an appraisal looked at, with what was expected and what was seen, as people and programs read it.
 */

import { shellWord } from "../../lib/shell.ts"

export interface Check {
  readonly name:
    "kind" | "boot_aggregate" | "launch" | "pcr" | "event_log" | "required" | "file" | "violation" | "files"
  readonly ok: boolean
  /** A failed `error` makes the verdict untrusted; a failed `warning` is shown. */
  readonly severity: "error" | "warning"
  /** The path, "pcr 4", or what else was judged. */
  readonly subject: string
  readonly expected: string
  readonly seen: string
  /** One line that stands alone. */
  readonly message: string
  /** The command that allows what was seen, where one can. */
  readonly approve?: string
}

/** A check whose failure makes the verdict untrusted. */
export function errorCheck(check: Omit<Check, "severity">): Check {
  return { ...check, severity: "error" }
}

/** The command that allows `hex` for `subject` (a path, or `pcr:N`). */
export function approveCommand(vm: string, subject: string, hex: string): string {
  return `mvm measure approve ${shellWord(vm)} ${shellWord(subject)} --digest ${hex}`
}
