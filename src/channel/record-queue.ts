/**
 * @module channel/record-queue
 *
 * Sealed records outside a ring: each as one byte string, head then payload, for frames on a relay. The same
 * records under the same keys; only the way differs. The sending end holds as many records as the other end gave
 * credits for, so nobody's memory grows with a slow reader.
 */

import { MvmError } from "../lib/errors.ts"
import { HEAD_BYTES, HEAD_WORDS, type RecordSink, type RecordSource } from "./record.ts"

/** Payload of a record that, with its head, fits a 64 KiB frame beside the frame's own fields. */
export const RELAY_PAYLOAD_BYTES = 60 * 1024

/** The sending end: hands each record to `send` on {@link publish}, as long as credits last. */
export class QueueSink implements RecordSink {
  readonly maxPayloadBytes = RELAY_PAYLOAD_BYTES
  readonly #send: (record: Uint8Array) => void
  readonly #waiting: Uint8Array[] = []
  #credits: number

  /** @param credits records the other end will take before it gives more */
  constructor(send: (record: Uint8Array) => void, credits: number) {
    this.#send = send
    this.#credits = credits
  }

  /**
   * The other end took `records` more.
   *
   * Trust: the number is the peer's; more credits than ever were out are its own loss.
   */
  credit(records: number): void {
    this.#credits = Math.min(this.#credits + records, Number.MAX_SAFE_INTEGER)
  }

  room(wantedBytes: number): number {
    return this.#credits > 0 ? Math.min(wantedBytes, this.maxPayloadBytes) : -1
  }

  claim(payloadBytes: number): boolean {
    if (payloadBytes > this.maxPayloadBytes) throw new RangeError("longer than a record")
    return this.#credits > 0
  }

  put(head: Uint32Array, payload: Uint8Array): void {
    const record = new Uint8Array(HEAD_BYTES + payload.length)
    record.set(new Uint8Array(head.buffer, head.byteOffset, HEAD_BYTES))
    record.set(payload, HEAD_BYTES)
    this.#credits--
    this.#waiting.push(record)
  }

  publish(): void {
    for (const record of this.#waiting.splice(0)) this.#send(record)
  }
}

/** The receiving end: takes records as they come, in the order they come. */
export class QueueSource implements RecordSource {
  readonly #limit: number
  readonly #records: Uint8Array[] = []

  /** @param limit records held at once: the credits given out */
  constructor(limit: number) {
    this.#limit = limit
  }

  /**
   * Trust: `record` came over the relay.
   *
   * @throws MvmError `record` when its length is not what its head says, `protocol` beyond the credits given.
   */
  push(record: Uint8Array): void {
    if (this.#records.length >= this.#limit)
      throw new MvmError("protocol", "relay: more records than credits")
    if (record.length < HEAD_BYTES || record.length > HEAD_BYTES + RELAY_PAYLOAD_BYTES) {
      throw new MvmError("record", `relay.record: ${record.length} bytes`)
    }
    const lengthBytes = new DataView(record.buffer, record.byteOffset).getUint32(0, true)
    if (lengthBytes !== record.length - HEAD_BYTES) {
      throw new MvmError("record", "relay.length: not the length of what follows")
    }
    this.#records.push(record)
  }

  next(head: Uint32Array): Uint8Array | undefined {
    const record = this.#records[0]
    if (record === undefined) return undefined
    const view = new DataView(record.buffer, record.byteOffset)
    for (let word = 0; word < HEAD_WORDS; word++) head[word] = view.getUint32(word * 4, true)
    return record.subarray(HEAD_BYTES)
  }

  release(): void {
    this.#records.shift()
  }
}
