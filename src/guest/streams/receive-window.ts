/**
 * @module guest/streams/receive-window
 *
 * How much one stream's sender may have under way to a reader. What came and was not read yet is held in memory, so
 * the window is what a stalled reader can cost; a reader that keeps up is given a larger one, out of a budget that
 * all streams of the session share.
 *
 *     |<------------------- window ------------------->|
 *     | read, not credited yet | held | may still come |
 *                                      <- allowance  ->
 */

import { MvmError } from "../../lib/errors.ts"

/** What either end may send on a fresh stream. */
export const FIRST_WINDOW_BYTES = 256 * 1024
/** The largest window: eight records of the longest kind under way fill the ring's pipeline. */
export const LAST_WINDOW_BYTES = 2 * 1024 * 1024
/** What all windows of a session may take beyond their first size. */
export const GROWTH_BUDGET_BYTES = 16 * 1024 * 1024

/** What is left of a session's {@link GROWTH_BUDGET_BYTES}. */
export interface GrowthBudget {
  leftBytes: number
}

export class ReceiveWindow {
  readonly #budget: GrowthBudget
  #sizeBytes = FIRST_WINDOW_BYTES
  #allowanceBytes = FIRST_WINDOW_BYTES
  #uncreditedBytes = 0

  constructor(budget: GrowthBudget) {
    this.#budget = budget
  }

  /**
   * `lengthBytes` came.
   *
   * Trust: the length is the peer's.
   *
   * @throws MvmError `protocol` when that is more than this end allowed.
   */
  arrived(lengthBytes: number): void {
    if (lengthBytes > this.#allowanceBytes) throw new MvmError("protocol", "stream: more data than credit")
    this.#allowanceBytes -= lengthBytes
  }

  /** The reader took `lengthBytes`. @returns the credit to give the sender now, or 0 while it has enough */
  taken(lengthBytes: number): number {
    this.#uncreditedBytes += lengthBytes
    if (this.#uncreditedBytes * 2 < this.#sizeBytes) return 0
    const grownBytes = this.#grow()
    const credit = this.#uncreditedBytes + grownBytes
    this.#uncreditedBytes = 0
    this.#allowanceBytes += credit
    return credit
  }

  /** The stream is over: what its window took is free for others. */
  close(): void {
    this.#budget.leftBytes += this.#sizeBytes - FIRST_WINDOW_BYTES
    this.#sizeBytes = FIRST_WINDOW_BYTES
  }

  #grow(): number {
    const grownBytes = Math.min(this.#sizeBytes, LAST_WINDOW_BYTES - this.#sizeBytes)
    if (grownBytes > this.#budget.leftBytes) return 0
    this.#budget.leftBytes -= grownBytes
    this.#sizeBytes += grownBytes
    return grownBytes
  }
}
