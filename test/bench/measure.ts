/**
 * @module bench/measure
 *
 * What every benchmark shares. Rounds of us and of the peers alternate, so that a machine that slows down slows all
 * of them down; ratios are taken within a round, and of those the median.
 */

import { cpus } from "node:os"

export interface Figure {
  /** As issue trackers and the README name it, "ring.vs_cipher" */
  readonly key: string
  readonly unit: string
  readonly median: number
  readonly rounds: readonly number[]
  /** What it must reach, for people */
  readonly target?: string | undefined
}

export interface BenchOptions {
  readonly rounds: number
  /** A line for whoever watches */
  readonly note: (line: string) => void
}

export type Bench = (options: BenchOptions) => Promise<Figure[]>

export function figure(key: string, unit: string, rounds: readonly number[], target?: string): Figure {
  return { key, unit, median: median(rounds), rounds, target }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The value below which `share` (0..1) of the values lie. */
export function quantile(sorted: ArrayLike<number>, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}

export function spread({ rounds }: Figure): { low: number; high: number } {
  return { low: Math.min(...rounds), high: Math.max(...rounds) }
}

/** Quotients of two rows of rounds, round by round. */
export function ratios(ours: readonly number[], theirs: readonly number[]): number[] {
  return ours.map((value, index) => value / theirs[index]!)
}

export function machine(): string {
  const all = cpus()
  return `${all.length} x ${all[0]?.model.trim() ?? "unknown processor"}, Bun ${Bun.version}`
}
