/**
 * @module channel/record-queue
 *
 * Sealed records outside a ring: each as one byte string, head then payload, for frames on a relay or on the agent's
 * socket. The same records under the same keys; only the way differs.
 *
 * Flow control counts bytes from the start of a direction: what was sent may be ahead of what the other end took by
 * at most a window, so nobody's memory grows with a slow reader. A count that was lost is made good by the next one.
 */

import { concat } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import { MAX_RELAYED_BYTES } from "../wire/fields.ts"
import { HEAD_BYTES, HEAD_WORDS, type RecordSink, type RecordSource } from "./record.ts"
import { BULK_PAYLOAD_BYTES } from "./ring-records.ts"

/** Payload of a record that, with its head, fits a 64 KiB frame beside the frame's own fields. */
export const RELAY_PAYLOAD_BYTES = MAX_RELAYED_BYTES - HEAD_BYTES

/** How far a sender may be ahead on a relay. Held at most once by each agent and twice by the MVM. */
export const RELAY_WINDOW_BYTES = 256 * 1024

/** The same between a command and its agent when the agent carries records to and from a ring. */
export const CARRIED_WINDOW_BYTES = 512 * 1024

/** What a record counts beside its length: what holding it costs, however short it is. */
const OVERHEAD_BYTES = 232

/** The longest record: one from a ring. */
const MAX_RECORD_BYTES = HEAD_BYTES + BULK_PAYLOAD_BYTES

/** What a record of `recordBytes` counts against a window. */
export function costOf(recordBytes: number): number {
  return recordBytes + OVERHEAD_BYTES
}

/** The sending end: hands each record to `send` on {@link publish}, as long as the window lasts. */
export class QueueSink implements RecordSink {
  readonly maxPayloadBytes: number
  readonly #send: (record: Uint8Array) => void
  readonly #windowBytes: number
  readonly #waiting: Uint8Array[] = []
  #sentBytes = 0
  #takenBytes = 0

  constructor(
    send: (record: Uint8Array) => void,
    windowBytes = RELAY_WINDOW_BYTES,
    maxPayloadBytes = RELAY_PAYLOAD_BYTES,
  ) {
    this.#send = send
    this.#windowBytes = windowBytes
    this.maxPayloadBytes = Math.min(maxPayloadBytes, RELAY_PAYLOAD_BYTES)
  }

  /**
   * The other end took records up to `takenBytes` of what was sent.
   *
   * @throws MvmError `protocol` for more than was sent.
   */
  taken(takenBytes: number): void {
    if (takenBytes > this.#sentBytes) throw new MvmError("protocol", "relay.taken: more than was sent")
    this.#takenBytes = Math.max(this.#takenBytes, takenBytes)
  }

  room(wantedBytes: number): number {
    const wanted = Math.min(wantedBytes, this.maxPayloadBytes)
    return this.hasRoom(wanted) ? wanted : -1
  }

  /** Whether a record with this payload fits now. */
  hasRoom(payloadBytes: number): boolean {
    const wouldBytes = this.#sentBytes + costOf(HEAD_BYTES + payloadBytes)
    return wouldBytes - this.#takenBytes <= this.#windowBytes
  }

  claim(payloadBytes: number): boolean {
    if (payloadBytes > this.maxPayloadBytes) throw new RangeError("longer than a record")
    return this.hasRoom(payloadBytes)
  }

  put(head: Uint32Array, payload: Uint8Array): void {
    const record = recordOf(head, payload)
    this.#sentBytes += costOf(record.length)
    this.#waiting.push(record)
  }

  publish(): void {
    for (const record of this.#waiting.splice(0)) this.#send(record)
  }
}

/** The receiving end: takes records as they come, in the order they come. */
export class QueueSource implements RecordSource {
  readonly #windowBytes: number
  readonly #records: Uint8Array[] = []
  /** Of a record that comes in parts. */
  #parts: Uint8Array[] = []
  #pushedBytes = 0
  #takenBytes = 0

  constructor(windowBytes = RELAY_WINDOW_BYTES) {
    this.#windowBytes = windowBytes
  }

  /** Whether a record is there. */
  get ready(): boolean {
    return this.#records.length > 0
  }

  /** How far records were taken, for the sender's {@link QueueSink.taken}. */
  get takenBytes(): number {
    return this.#takenBytes
  }

  /**
   * A record, or the next part of one when `more` follows.
   *
   * Trust: `part` came over the relay.
   *
   * @throws MvmError `record` when its length is not what its head says, `protocol` beyond the window.
   */
  push(part: Uint8Array, more = false): void {
    if (more || this.#parts.length > 0) this.#parts.push(part)
    if (more) {
      const lengthBytes = this.#parts.reduce((sum, { length }) => sum + length, 0)
      if (part.length === 0 || lengthBytes > MAX_RECORD_BYTES) throw wrongLength(lengthBytes)
      return
    }
    const record = this.#parts.length === 0 ? part : concat(...this.#parts)
    this.#parts = []
    checkLength(record)
    this.#pushedBytes += costOf(record.length)
    if (this.#pushedBytes - this.#takenBytes > this.#windowBytes) {
      throw new MvmError("protocol", "relay.record: more than the window holds")
    }
    this.#records.push(record)
  }

  next(head: Uint32Array): Uint8Array | undefined {
    const record = this.#records[0]
    return record && payloadOf(record, head)
  }

  release(): void {
    const record = this.#records.shift()
    if (record) this.#takenBytes += costOf(record.length)
  }
}

/** One byte string: head, then payload. */
export function recordOf(head: Uint32Array, payload: Uint8Array): Uint8Array {
  const record = new Uint8Array(HEAD_BYTES + payload.length)
  record.set(new Uint8Array(head.buffer, head.byteOffset, HEAD_BYTES))
  record.set(payload, HEAD_BYTES)
  return record
}

/** Fills `head` ({@link HEAD_WORDS} words) from a record of sound length, and returns its payload as a view. */
export function payloadOf(record: Uint8Array, head: Uint32Array): Uint8Array {
  const view = new DataView(record.buffer, record.byteOffset)
  for (let word = 0; word < HEAD_WORDS; word++) head[word] = view.getUint32(word * 4, true)
  return record.subarray(HEAD_BYTES)
}

/** @throws MvmError `record` unless it is as long as its head says, and no longer than any may be. */
export function checkLength(record: Uint8Array): void {
  if (record.length < HEAD_BYTES || record.length > MAX_RECORD_BYTES) {
    throw wrongLength(record.length)
  }
  const lengthBytes = new DataView(record.buffer, record.byteOffset).getUint32(0, true)
  if (lengthBytes !== record.length - HEAD_BYTES) {
    throw new MvmError("record", "relay.length: not the length of what follows")
  }
}

function wrongLength(lengthBytes: number): MvmError {
  return new MvmError("record", `relay.record: ${lengthBytes} bytes`)
}
