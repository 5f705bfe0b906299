/**
 * @module guest/copy/hash-feed
 *
 * The digests of what the receiver has of one file, on their way from the task that reads the stream to the one that
 * sends the content.
 */

import { SHA256_BYTES } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"

/** Past so many that nobody took yet, the stream is not read on. */
const BACKLOG = 4096

export class HashFeed {
  #expected: number
  #digests: Uint8Array[] = []
  #at = 0
  #isDiscarded = false
  #failure: unknown
  #wake: (() => void) | undefined
  #room: (() => void) | undefined

  /** @param blocks how many the receiver announced */
  constructor(blocks: number) {
    this.#expected = blocks
  }

  /** Whether all that were announced have come. */
  get isComplete(): boolean {
    return this.#expected === 0
  }

  /**
   * Resolves when more may follow.
   *
   * Trust: the receiver's. @throws MvmError `protocol` for more than it announced
   */
  async push(digests: Uint8Array): Promise<void> {
    const count = digests.length / SHA256_BYTES
    if (count === 0 || !Number.isInteger(count) || count > this.#expected) {
      throw new MvmError("protocol", "HASHES: not the number that was announced")
    }
    this.#expected -= count
    if (this.#isDiscarded) return
    for (let at = 0; at < digests.length; at += SHA256_BYTES) {
      this.#digests.push(digests.subarray(at, at + SHA256_BYTES))
    }
    this.#wake?.()
    if (this.#digests.length - this.#at < BACKLOG) return
    await new Promise<void>((resolve) => (this.#room = resolve))
  }

  /** The next block's digest, undefined after the last. @throws what {@link fail} was given */
  async next(): Promise<Uint8Array | undefined> {
    while (this.#at === this.#digests.length) {
      this.#digests = []
      this.#at = 0
      this.#room?.()
      if (this.#failure !== undefined) throw this.#failure
      if (this.#expected === 0) return undefined
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    this.#at += 1
    return this.#digests[this.#at - 1]
  }

  /** Nobody wants the rest. */
  discard(): void {
    this.#isDiscarded = true
    this.#digests = []
    this.#at = 0
    this.#room?.()
  }

  fail(error: unknown): void {
    this.#failure ??= error
    this.#wake?.()
    this.#room?.()
  }
}
