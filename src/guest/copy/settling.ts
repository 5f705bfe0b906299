/**
 * @module guest/copy/settling
 *
 * Work on its way to the disk, which the copy does not wait for one by one: it ends only after all of it.
 */

export class Settling {
  readonly #running = new Set<Promise<void>>()
  readonly #failed: (error: unknown) => void

  /** @param failed told of each failure */
  constructor(failed: (error: unknown) => void) {
    this.#failed = failed
  }

  get count(): number {
    return this.#running.size
  }

  add(work: Promise<void>): void {
    const running = work.catch(this.#failed).finally(() => this.#running.delete(running))
    this.#running.add(running)
  }

  /** Resolves when something has ended, at once if nothing runs. */
  async one(): Promise<void> {
    await Promise.race(this.#running.size > 0 ? this.#running : [undefined])
  }

  /** Resolves when nothing runs any more, what began meanwhile included. */
  async all(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }
}
