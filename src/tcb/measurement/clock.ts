/**
 * @module tcb/measurement/clock
 *
 * A TPM counts its resets, its resumes and its milliseconds of life. The verifier remembers them: a state that was
 * restored or cloned goes backwards, and a reset the monitor did not report (a guest that suspended to RAM) shows
 * as a count that moved by itself.
 *
 * @spec TPM 2.0 Part 1 §36 (timing components), Part 2 §10.11.1 (TPMS_CLOCK_INFO)
 */

import { MvmError } from "../../lib/errors.ts"

/** What a verified quote says of the TPM's life. */
export interface ClockReading {
  /** milliseconds */
  readonly clock: bigint
  readonly resetCount: number
  readonly restartCount: number
}

/** Whether a reset is expected since the last reading; with a count, where it is known from before the start. */
export type ResetSeen = boolean | { readonly resetCount: number }

/**
 * The step from the last reading to the next one; returns the reading to remember.
 *
 * `resetSeen`: the monitor reported a reset or the MVM started the VM since `previous`. Then the counts must have
 * moved on; otherwise they must be the same, with the clock not lower. After a seen reset the clock may be lower,
 * since a killed swtpm loses up to its last saved interval.
 *
 * Where the count is known (the manager reads the clock before each start, and firmware adds one), it must be met
 * exactly.
 *
 * With no previous reading only restartCount is judged: it counts resumes, and no VM is allowed one.
 *
 * @throws MvmError `evidence_rollback` for counts or a clock that went back, `evidence_reset` for a reset nobody
 *   saw, or one that was seen and not counted.
 */
export function checkClock(
  previous: ClockReading | undefined,
  now: ClockReading,
  resetSeen: ResetSeen,
): ClockReading {
  const reading = { clock: now.clock, resetCount: now.resetCount, restartCount: now.restartCount }
  if (typeof resetSeen === "object") checkResetCount(now.resetCount, resetSeen.resetCount)
  if (previous === undefined) {
    if (now.restartCount !== 0) throw reset(`restartCount is ${now.restartCount} at the first evidence`)
    return reading
  }
  const step = compareCounts(previous, now)
  const counts = `resetCount ${previous.resetCount} -> ${now.resetCount}, restartCount ${previous.restartCount} -> ${now.restartCount}`
  if (step < 0) throw rollback(counts)
  if (step === 0) {
    if (resetSeen) throw reset(`the vm was reset and its tpm was not (${counts})`)
    if (now.clock < previous.clock) throw rollback(`clock ${previous.clock} -> ${now.clock} ms`)
    return reading
  }
  if (!resetSeen) throw reset(`the tpm was reset and no reset of the vm was seen (${counts})`)
  return reading
}

/** Whether a refusal of this code means a TPM that is not the one whose start was seen. */
export function isUnseenReset(code: string): boolean {
  return code === "evidence_reset" || code === "evidence_rollback"
}

function checkResetCount(seen: number, expected: number): void {
  if (seen === expected) return
  const problem = `resetCount is ${seen}, ${expected} expected after the start`
  throw seen < expected ? rollback(problem) : reset(problem)
}

function compareCounts(a: ClockReading, b: ClockReading): number {
  return b.resetCount - a.resetCount || b.restartCount - a.restartCount
}

function reset(problem: string): MvmError {
  return new MvmError("evidence_reset", `quote.clockInfo: ${problem}`, {
    hint: "stop and start the vm through the manager",
  })
}

function rollback(problem: string): MvmError {
  return new MvmError("evidence_rollback", `quote.clockInfo: went back, ${problem}`, {
    hint: "the vtpm state was restored or cloned: start from the state the manager holds, or create the vm anew",
  })
}
