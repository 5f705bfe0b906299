/**
 * @module lib/health
 *
 * What a doctor finds: facts are probed first, all of them; then each check of a table judges them. Judging touches
 * nothing, so that what is said follows from what was seen.
 */

export type Level = "ok" | "warn" | "fail"

export interface Judgement {
  readonly level: Level
  /** One line, lower case, no full stop. */
  readonly text: string
  /** The command or the change that mends it; only with `warn` and `fail`. */
  readonly remedy?: string | undefined
}

export interface Finding extends Judgement {
  readonly check: string
}

export interface Check<Facts> {
  readonly name: string
  /** Nothing to say where the facts do not concern it. */
  judge(facts: Facts): Judgement | readonly Judgement[] | undefined
}

export const ok = (text: string): Judgement => ({ level: "ok", text })
export const warn = (text: string, remedy: string): Judgement => ({ level: "warn", text, remedy })
export const fail = (text: string, remedy: string): Judgement => ({ level: "fail", text, remedy })

/** In the order of the table. */
export function judge<Facts>(checks: readonly Check<Facts>[], facts: Facts): Finding[] {
  return checks.flatMap(({ name, judge: judgeOne }) => {
    const found = judgeOne(facts)
    const judgements = found === undefined ? [] : "level" in found ? [found] : found
    return judgements.map((judgement) => ({ check: name, ...judgement }))
  })
}

/** The words of a version as numbers: "7.2.22 (Debian)" is [7, 2, 22]. */
export function versionNumbers(text: string): number[] {
  return (/\d+(?:\.\d+)*/.exec(text)?.[0] ?? "").split(".").filter(Boolean).map(Number)
}

/** Whether version `text` is lower than `least`. A version that has no number is. */
export function isOlder(text: string, least: readonly number[]): boolean {
  const numbers = versionNumbers(text)
  if (numbers.length === 0) return true
  for (const [index, value] of least.entries()) {
    const seen = numbers[index] ?? 0
    if (seen !== value) return seen < value
  }
  return false
}
