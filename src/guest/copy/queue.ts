/**
 * @module guest/copy/queue
 *
 * From one task to another within an end of a copy, in order. What bounds it is the protocol's window.
 */

export class Queue<T> {
  #items: T[] = []
  #at = 0
  #failure: unknown
  #waiting: { resolve(item: T): void; reject(error: unknown): void } | undefined

  get length(): number {
    return this.#items.length - this.#at
  }

  push(item: T): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting) waiting.resolve(item)
    else this.#items.push(item)
  }

  /** The first item, if there is one now. */
  take(): T | undefined {
    if (this.#at === this.#items.length) return undefined
    const item = this.#items[this.#at]
    this.#at += 1
    if (this.#at === this.#items.length) {
      this.#items = []
      this.#at = 0
    }
    return item
  }

  /** The first item, once there is one. One task alone may wait. @throws what {@link fail} was given */
  next(): Promise<T> {
    const item = this.take()
    if (item !== undefined) return Promise.resolve(item)
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }))
  }

  /** Nothing more comes. */
  fail(error: unknown): void {
    this.#failure ??= error
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.reject(error)
  }
}
