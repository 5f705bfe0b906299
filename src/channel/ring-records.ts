/**
 * @module channel/ring-records
 *
 * Records in a ring. Here is the one place where ciphertext crosses between shared and private memory.
 *
 * arena: other VMs map the region and can change it at any instant, and GCM may read its input or output twice; so
 * the cipher works on private memory, with one copy each way. dedicated: only the authenticated peer maps the
 * region, and the opener decrypts straight from it. The runtime's cipher always writes to memory of its own, so the
 * sealer's copy is there in both.
 */

import type { Isolation } from "./decision.ts"
import { RECORD_HEADER_BYTES, TAG_OFFSET_BYTES } from "../ring/layout.ts"
import { EMPTY, type RingConsumer } from "../ring/consumer.ts"
import { NO_ROOM, type RingProducer } from "../ring/producer.ts"
import { HEAD_WORDS, type RecordSink, type RecordSource } from "./record.ts"

/**
 * The longest payload by default, with its header 256 KiB: long enough that the cost of a record vanishes, short
 * enough that plaintext, ciphertext and ring stay near the core. 128 KiB is as fast, 64 KiB and 512 KiB are slower.
 */
export const BULK_PAYLOAD_BYTES = 256 * 1024 - RECORD_HEADER_BYTES

/** Up to here a loop over words is cheaper than making a view of the ring to copy from. */
const SHORT_PAYLOAD_BYTES = 256

const TAG_WORD = TAG_OFFSET_BYTES / 4
const HEAD_TAG_WORD = HEAD_WORDS - 4

export class RingSink implements RecordSink {
  readonly maxPayloadBytes: number
  readonly #producer: RingProducer
  #offset = NO_ROOM

  constructor(producer: RingProducer, maxPayloadBytes = BULK_PAYLOAD_BYTES) {
    this.#producer = producer
    this.maxPayloadBytes = Math.min(maxPayloadBytes, producer.maxPayloadBytes)
  }

  room(wantedBytes: number): number {
    return this.#producer.bestPayloadBytes(wantedBytes, this.maxPayloadBytes)
  }

  claim(payloadBytes: number): boolean {
    this.#offset = this.#producer.claim(payloadBytes)
    return this.#offset !== NO_ROOM
  }

  put(head: Uint32Array, payload: Uint8Array): void {
    const { bytes, words } = this.#producer.memory
    const word = this.#offset >> 2
    words[word] = head[0]!
    words[word + 1] = head[1]!
    for (let at = 0; at < 4; at++) words[word + TAG_WORD + at] = head[HEAD_TAG_WORD + at]!
    bytes.set(payload, this.#offset + RECORD_HEADER_BYTES)
    this.#producer.commit()
  }

  publish(): void {
    this.#producer.publish()
  }
}

export class RingSource implements RecordSource {
  readonly #consumer: RingConsumer
  readonly #inPlace: boolean
  #copy = new Uint8Array(4096)
  #copyWords = new Int32Array(this.#copy.buffer)
  /** The start of the copy, as long as the last record: short records tend to be of one length. */
  #view = this.#copy.subarray(0, 0)

  constructor(consumer: RingConsumer, isolation: Isolation) {
    this.#consumer = consumer
    this.#inPlace = isolation === "dedicated"
  }

  next(head: Uint32Array): Uint8Array | undefined {
    const offset = this.#consumer.next()
    if (offset === EMPTY) return undefined
    const { bytes, words } = this.#consumer.memory
    const lengthBytes = this.#consumer.payloadBytes
    head[0] = lengthBytes
    head[1] = this.#consumer.kindWord
    const tag = (offset >> 2) + TAG_WORD
    for (let at = 0; at < 4; at++) head[HEAD_TAG_WORD + at] = words[tag + at]!
    const from = offset + RECORD_HEADER_BYTES
    if (this.#inPlace) return bytes.subarray(from, from + lengthBytes)
    if (this.#copy.length < lengthBytes) {
      this.#copy = new Uint8Array(roundUp(lengthBytes))
      this.#copyWords = new Int32Array(this.#copy.buffer)
    }
    if (this.#view.length !== lengthBytes || this.#view.buffer !== this.#copy.buffer) {
      this.#view = this.#copy.subarray(0, lengthBytes)
    }
    if (lengthBytes <= SHORT_PAYLOAD_BYTES) {
      // Payload room is whole units, so the last word is there even where the payload ends within it.
      const first = from >> 2
      for (let word = 0; word * 4 < lengthBytes; word++) this.#copyWords[word] = words[first + word]!
    } else {
      this.#copy.set(bytes.subarray(from, from + lengthBytes))
    }
    // The copy is all that is looked at from here, so the producer gets its room back before the cipher runs.
    this.#consumer.release()
    return this.#view
  }

  release(): void {
    if (this.#inPlace) this.#consumer.release()
  }
}

function roundUp(lengthBytes: number): number {
  return 2 ** Math.ceil(Math.log2(lengthBytes))
}
