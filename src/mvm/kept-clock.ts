/**
 * @module mvm/kept-clock
 *
 * The last reading of a vTPM's clock, in memory at every quote and written down now and then: what must never go
 * backwards, across lives of the MVM too.
 */

import type { ClockReading } from "../tcb/measurement/clock.ts"

/** Between two readings of a boot that are written down. */
const PERIOD_MS = 60_000

export class KeptClock {
  readonly #write: (clock: ClockReading) => void
  #last: ClockReading | undefined
  #written: { readonly clock: ClockReading; readonly atMs: number } | undefined

  constructor(write: (clock: ClockReading) => void) {
    this.#write = write
  }

  get last(): ClockReading | undefined {
    return this.#last
  }

  /** Another boot. @param clock its last reading, where an earlier life of the MVM took one */
  begin(clock: ClockReading | undefined): void {
    this.#last = clock
    this.#written = undefined
  }

  read(clock: ClockReading): void {
    this.#last = clock
    if (!this.#written || performance.now() - this.#written.atMs >= PERIOD_MS) this.keep()
  }

  /** Writes the last reading down, unless it is. */
  keep(): void {
    const clock = this.#last
    if (!clock || clock === this.#written?.clock) return
    this.#written = { clock, atMs: performance.now() }
    this.#write(clock)
  }
}
