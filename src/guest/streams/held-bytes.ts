/**
 * @module guest/streams/held-bytes
 *
 * What came on a stream and nobody has read yet. Short pieces are copied together: a peer that sends single bytes
 * must not make this end keep an object for each of them.
 */

const SHORT_BYTES = 4096
const GATHER_BYTES = 16 * 1024

export class HeldBytes {
  #pieces: Uint8Array[] = []
  /** The last of the pieces, as far as it is filled; undefined when that is no gathering one. */
  #gathering: { buffer: Uint8Array; filledBytes: number } | undefined

  get isEmpty(): boolean {
    return this.#pieces.length === 0 && this.#gathering === undefined
  }

  /** Takes `bytes` over. */
  add(bytes: Uint8Array): void {
    if (bytes.length > SHORT_BYTES) {
      this.#close()
      this.#pieces.push(bytes)
      return
    }
    if (this.#gathering && this.#gathering.filledBytes + bytes.length > GATHER_BYTES) this.#close()
    this.#gathering ??= { buffer: new Uint8Array(GATHER_BYTES), filledBytes: 0 }
    this.#gathering.buffer.set(bytes, this.#gathering.filledBytes)
    this.#gathering.filledBytes += bytes.length
  }

  /** The piece that came first, or undefined when there is none. */
  take(): Uint8Array | undefined {
    if (this.#pieces.length === 0) this.#close()
    return this.#pieces.shift()
  }

  clear(): void {
    this.#pieces = []
    this.#gathering = undefined
  }

  #close(): void {
    if (!this.#gathering) return
    this.#pieces.push(this.#gathering.buffer.subarray(0, this.#gathering.filledBytes))
    this.#gathering = undefined
  }
}
