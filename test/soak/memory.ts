/**
 * @module test/soak/memory
 *
 * Whether memory stays flat: anonymous memory of the daemon and its agents, in samples over the run.
 */

import { readFileSync } from "node:fs"

/** Anonymous memory of a process, bytes; shared memory that it touched is not its own. */
export function anonymousBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024
}

export interface Flatness {
  readonly firstMb: number
  readonly lastMb: number
  readonly peakMb: number
  readonly isFlat: boolean
}

/** What a collector may hold more at one time than at another. */
const SHARE = 1.25
const SLACK_MB = 24

/** The first third is warming up; the last must be no more than the one before it, but for a collector's whims. */
export function flatness(samples: readonly number[]): Flatness {
  const third = Math.floor(samples.length / 3)
  const mb = (part: readonly number[]): number => {
    const sorted = part.toSorted((a, b) => a - b)
    return (sorted[Math.floor(sorted.length / 2)] ?? 0) / 2 ** 20
  }
  const [firstMb, lastMb] = [mb(samples.slice(third, 2 * third)), mb(samples.slice(2 * third))]
  const peakMb = Math.max(...samples, 0) / 2 ** 20
  return { firstMb, lastMb, peakMb, isFlat: lastMb <= firstMb * SHARE + SLACK_MB }
}
