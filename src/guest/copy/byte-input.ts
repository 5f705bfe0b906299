/**
 * @module guest/copy/byte-input
 *
 * What a stream brings, in the portions its reader wants: so many bytes at once, or as they come.
 */

import { MvmError } from "../../lib/errors.ts"
import type { ByteDuplex } from "../streams/byte-duplex.ts"

export class ByteInput {
  readonly #stream: Pick<ByteDuplex, "read">
  /** What came and was not taken: `#head` from `#at` on, then `#rest`. */
  #head: Uint8Array = new Uint8Array(0)
  #at = 0
  #rest: Uint8Array[] = []
  #bufferedBytes = 0
  #ended = false

  constructor(stream: Pick<ByteDuplex, "read">) {
    this.#stream = stream
  }

  /**
   * Waits until `lengthBytes` are there to be taken.
   *
   * @returns false at the end of the stream, if nothing is left
   * @throws MvmError `truncated` when it ends earlier, and what the stream throws
   */
  async has(lengthBytes: number): Promise<boolean> {
    while (this.#bufferedBytes < lengthBytes) {
      const chunk = this.#ended ? null : await this.#stream.read()
      if (chunk === null) {
        this.#ended = true
        if (this.#bufferedBytes === 0) return false
        throw new MvmError("truncated", "the stream ended in the middle of a message")
      }
      this.#rest.push(chunk)
      this.#bufferedBytes += chunk.length
    }
    return true
  }

  /** Whether `lengthBytes` can be taken without waiting. */
  holds(lengthBytes: number): boolean {
    return this.#bufferedBytes >= lengthBytes
  }

  /** The next `lengthBytes`, which are there; a view where they came in one piece. */
  take(lengthBytes: number): Uint8Array {
    const first = this.#next(lengthBytes)
    if (first.length === lengthBytes) return first
    const out = new Uint8Array(lengthBytes)
    out.set(first)
    for (let at = first.length; at < lengthBytes;) {
      const piece = this.#next(lengthBytes - at)
      out.set(piece, at)
      at += piece.length
    }
    return out
  }

  /** One to `mostBytes` bytes, as they came. @throws MvmError `truncated` at the end of the stream. */
  async some(mostBytes: number): Promise<Uint8Array> {
    if (!(await this.has(1))) throw new MvmError("truncated", "the stream ended in the middle of a file")
    return this.#next(mostBytes)
  }

  /** A view of what is left of the first piece, at most `mostBytes`. */
  #next(mostBytes: number): Uint8Array {
    while (this.#at === this.#head.length) {
      const chunk = this.#rest.shift()
      if (chunk === undefined) return new Uint8Array(0)
      this.#head = chunk
      this.#at = 0
    }
    const piece = this.#head.subarray(this.#at, this.#at + mostBytes)
    this.#at += piece.length
    this.#bufferedBytes -= piece.length
    return piece
  }
}
