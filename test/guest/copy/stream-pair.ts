/**
 * @module test/guest/copy/stream-pair
 *
 * Two ends of one stream in memory, with the flow control of a real one: who writes waits until the other end has
 * read enough of it.
 */

import { MvmError } from "../../../src/lib/errors.ts"
import type { ByteDuplex } from "../../../src/guest/streams/byte-duplex.ts"

const BUFFER_BYTES = 256 * 1024

/** One direction. */
class Pipe {
  readonly #chunks: Uint8Array[] = []
  #bytes = 0
  #ended = false
  #failure: MvmError | undefined
  #reader: (() => void) | undefined
  #writer: (() => void) | undefined
  /** Bytes that passed. */
  passedBytes = 0
  /** Called with each chunk; may change it, or break the stream. */
  tap: ((chunk: Uint8Array) => Uint8Array) | undefined

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      if (this.#failure) throw this.#failure
      const chunk = this.#chunks.shift()
      if (chunk) {
        this.#bytes -= chunk.length
        this.#writer?.()
        return chunk
      }
      if (this.#ended) return null
      await new Promise<void>((resolve) => (this.#reader = resolve))
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#failure) throw this.#failure
    if (this.#ended) throw new MvmError("sink", "the stream was ended")
    const chunk = this.tap ? this.tap(bytes.slice()) : bytes.slice()
    if (this.#failure) throw this.#failure
    this.passedBytes += chunk.length
    this.#bytes += chunk.length
    if (chunk.length > 0) this.#chunks.push(chunk)
    this.#reader?.()
    while (this.#bytes > BUFFER_BYTES && !this.#failure) {
      await new Promise<void>((resolve) => (this.#writer = resolve))
    }
    if (this.#failure) throw this.#failure
  }

  end(): void {
    this.#ended = true
    this.#reader?.()
  }

  fail(error: MvmError): void {
    this.#failure ??= error
    this.#reader?.()
    this.#writer?.()
  }
}

export interface StreamPair {
  readonly a: ByteDuplex
  readonly b: ByteDuplex
  readonly fromA: Pipe
  readonly fromB: Pipe
}

export function streamPair(): StreamPair {
  const fromA = new Pipe()
  const fromB = new Pipe()
  const reset = (error: MvmError): void => {
    fromA.fail(error)
    fromB.fail(error)
  }
  const endOf = (mine: Pipe, other: Pipe): ByteDuplex => ({
    read: () => other.read(),
    write: (bytes) => mine.write(bytes),
    end: async () => mine.end(),
    reset,
  })
  return { a: endOf(fromA, fromB), b: endOf(fromB, fromA), fromA, fromB }
}
