/**
 * @module platform/process-usage
 *
 * What this process takes of the machine.
 *
 * @spec proc(5): /proc/PID/stat, /proc/PID/statm, /proc/stat
 */

import { readFileSync, readdirSync } from "node:fs"

/** USER_HZ, the same on every Linux that mvm runs on. */
const TICKS_PER_SECOND = 100
const PAGE_BYTES = 4096
/** Fields of /proc/self/stat; the first one behind the command's name is the third. */
const UTIME = 14 - 3
const STIME = 15 - 3
const STARTTIME = 22 - 3

export interface ProcessUsage {
  readonly cpuSeconds: number
  readonly residentBytes: number
  /** Of it without files and shared memory */
  readonly anonymousBytes: number
  readonly virtualBytes: number
  readonly openDescriptors: number
  /** Since the epoch */
  readonly startSeconds: number
}

export function processUsage(): ProcessUsage {
  const stat = readFileSync("/proc/self/stat", "latin1")
  const fields = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number)
  const [virtual = 0, resident = 0, shared = 0] = readFileSync("/proc/self/statm", "latin1")
    .split(" ")
    .map(Number)
  const bootSeconds = Number(/^btime (\d+)$/m.exec(readFileSync("/proc/stat", "latin1"))?.[1] ?? 0)
  return {
    cpuSeconds: ((fields[UTIME] ?? 0) + (fields[STIME] ?? 0)) / TICKS_PER_SECOND,
    residentBytes: resident * PAGE_BYTES,
    anonymousBytes: (resident - shared) * PAGE_BYTES,
    virtualBytes: virtual * PAGE_BYTES,
    openDescriptors: readdirSync("/proc/self/fd").length,
    startSeconds: bootSeconds + (fields[STARTTIME] ?? 0) / TICKS_PER_SECOND,
  }
}
