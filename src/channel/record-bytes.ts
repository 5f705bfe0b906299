/**
 * @module channel/record-bytes
 *
 * Records one behind the other as bytes, for content that is kept: each its head and its payload, and nothing
 * between them.
 */

import { concat } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import { HEAD_BYTES, HEAD_WORDS, type RecordSink, type RecordSource } from "./record.ts"

/** The longest payload. */
export const KEPT_PAYLOAD_BYTES = 128 * 1024 - HEAD_BYTES

/** Gathers records until somebody takes their bytes. */
export class RecordWriter implements RecordSink {
  readonly maxPayloadBytes = KEPT_PAYLOAD_BYTES
  #parts: Uint8Array[] = []
  #lengthBytes = 0

  /** What {@link take} would give. */
  get lengthBytes(): number {
    return this.#lengthBytes
  }

  room(wantedBytes: number): number {
    return Math.min(wantedBytes, this.maxPayloadBytes)
  }

  claim(): boolean {
    return true
  }

  put(head: Uint32Array, payload: Uint8Array): void {
    const bytes = new Uint8Array(HEAD_BYTES + payload.length)
    // The words are in the machine's order, which is the format's: every supported processor is little-endian.
    bytes.set(new Uint8Array(head.buffer, head.byteOffset, HEAD_BYTES))
    bytes.set(payload, HEAD_BYTES)
    this.#parts.push(bytes)
    this.#lengthBytes += bytes.length
  }

  publish(): void {}

  /** Everything put since it was last taken. */
  take(): Uint8Array {
    const bytes = concat(...this.#parts)
    this.#parts = []
    this.#lengthBytes = 0
    return bytes
  }
}

/** Yields the records of bytes that come in any pieces. */
export class RecordReader implements RecordSource {
  #bytes: Uint8Array = new Uint8Array(0)
  #at = 0

  /** Bytes that are no whole record yet. */
  get restBytes(): number {
    return this.#bytes.length - this.#at
  }

  /** @param bytes copied */
  push(bytes: Uint8Array): void {
    this.#bytes = concat(this.#bytes.subarray(this.#at), bytes)
    this.#at = 0
  }

  /** Trust: any bytes. @throws MvmError `record` for a length that no record has. */
  next(head: Uint32Array): Uint8Array | undefined {
    if (this.restBytes < HEAD_BYTES) return undefined
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + this.#at, HEAD_BYTES)
    const lengthBytes = view.getUint32(0, true)
    if (lengthBytes > KEPT_PAYLOAD_BYTES) throw new MvmError("record", `a payload of ${lengthBytes} bytes`)
    if (this.restBytes < HEAD_BYTES + lengthBytes) return undefined
    for (let word = 0; word < HEAD_WORDS; word += 1) head[word] = view.getUint32(4 * word, true)
    const from = this.#at + HEAD_BYTES
    this.#at = from + lengthBytes
    return this.#bytes.subarray(from, this.#at)
  }

  release(): void {}
}
