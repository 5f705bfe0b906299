/**
 * @module guest/copy/pacer
 *
 * Reading, hashing and writing files are synchronous. A loop of them asks here now and then, so that sockets,
 * timers and signals have their turn.
 */

const TURN_MS = 5

export class Pacer {
  #sinceMs = performance.now()

  /** Resolves at once, or after a turn of the event loop when the last one was long ago. */
  async pace(): Promise<void> {
    if (performance.now() - this.#sinceMs < TURN_MS) return
    await new Promise((resolve) => setImmediate(resolve))
    this.#sinceMs = performance.now()
  }
}
