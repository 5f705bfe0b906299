/**
 * @module ring/producer
 *
 * The writing end of a ring: claim, write, commit, publish. Its tail lives here and is only ever written to the
 * memory; the consumer's head is read once at a time and checked.
 *
 *               claim            commit             publish
 *     free ------------> claimed --------> committed ----------> published (the consumer may read)
 *       ^                   |
 *       +------ abort ------+
 *
 * Single-threaded use; one producer for one ring, starting with a fresh region. Not here: sealing (channel/), and
 * sending the KICK that {@link RingProducer.takeKick} asks for.
 */

import { MvmError } from "../lib/errors.ts"
import {
  longestPayloadBytes,
  PADDING,
  recordUnits,
  RECORD_HEADER_BYTES,
  UNIT_BYTES,
  type RingMemory,
} from "./layout.ts"

/** What {@link RingProducer.claim} returns when the record does not fit now. */
export const NO_ROOM = -1

/** A record this many times shorter than wanted is not worth its cipher call: padding is cheaper. */
const SHORT_RECORD_SHARE = 4

export class RingProducer {
  readonly memory: RingMemory
  /** The longest payload any record can have. */
  readonly maxPayloadBytes: number

  readonly #mask: number
  #tail: number
  #publishedTail: number
  #headCache: number
  #claimedUnits = 0
  #paddingUnits = 0
  #kickDue = false
  #failure: MvmError | undefined

  /** @param start the cursor both ends start at, as the memory holds it: 0 in a fresh region */
  constructor(memory: RingMemory, start = 0) {
    this.memory = memory
    this.#tail = this.#publishedTail = this.#headCache = start
    this.#mask = memory.capacityUnits - 1
    this.maxPayloadBytes = longestPayloadBytes(memory.capacityUnits * UNIT_BYTES)
  }

  /**
   * Claims room for one record with `payloadBytes` of payload. Returns the record's byte offset in the ring, or
   * {@link NO_ROOM}. One claim at a time; it ends with {@link commit} or {@link abort}.
   *
   * @throws RangeError for a payload no record can have; MvmError `protocol` once the consumer broke the ring.
   */
  claim(payloadBytes: number): number {
    if (payloadBytes > this.maxPayloadBytes) throw new RangeError("payload exceeds half the ring")
    if (this.#claimedUnits !== 0) throw new RangeError("a claim is open")
    const units = recordUnits(payloadBytes)
    const index = this.#tail & this.#mask
    const untilEnd = this.memory.capacityUnits - index
    const padding = units > untilEnd ? untilEnd : 0
    if (!this.#fits(padding + units)) return NO_ROOM
    this.#claimedUnits = units
    this.#paddingUnits = padding
    return (padding === 0 ? index : 0) * UNIT_BYTES
  }

  /**
   * How long the next payload should be for a caller with `wantedBytes` waiting; -1: not now. Normally all of it, up
   * to `maxBytes`; less when that fills the ring to its end, unless so little is left there that padding costs
   * less than a short record.
   */
  bestPayloadBytes(wantedBytes: number, maxBytes: number): number {
    const wanted = Math.min(wantedBytes, maxBytes, this.maxPayloadBytes)
    const units = recordUnits(wanted)
    const untilEnd = this.memory.capacityUnits - (this.#tail & this.#mask)
    if (units <= untilEnd) return this.#fits(units) ? wanted : -1
    // One unit holds a header and nothing else: a record there would carry no byte on.
    if (untilEnd === 1 || untilEnd * SHORT_RECORD_SHARE < units)
      return this.#fits(untilEnd + units) ? wanted : -1
    return this.#fits(untilEnd) ? untilEnd * UNIT_BYTES - RECORD_HEADER_BYTES : -1
  }

  /** The claimed record is complete. Nobody sees it before {@link publish}. */
  commit(): void {
    if (this.#claimedUnits === 0) throw new RangeError("nothing is claimed")
    if (this.#paddingUnits !== 0) {
      const word = ((this.#tail & this.#mask) * UNIT_BYTES) >> 2
      this.memory.words[word] = this.#paddingUnits * UNIT_BYTES - RECORD_HEADER_BYTES
      this.memory.words[word + 1] = PADDING | 0
    }
    this.#tail = (this.#tail + this.#paddingUnits + this.#claimedUnits) >>> 0
    this.#claimedUnits = 0
  }

  /** Gives the claim back; nothing was written as far as anybody sees. */
  abort(): void {
    this.#claimedUnits = 0
  }

  /** Makes all committed records visible. Call once for a batch. */
  publish(): void {
    if (this.#publishedTail === this.#tail) return
    this.#publishedTail = this.#tail
    // SYNC POINT tail: everything written to the records happens before this store, and this store before the
    // look at the consumer's request (SYNC POINT data-wanted in consumer.ts does the two in the other order).
    Atomics.store(this.memory.control, this.memory.tailWord, this.#tail | 0)
    if (Atomics.load(this.memory.control, this.memory.dataWantedWord) !== 0) {
      if (Atomics.exchange(this.memory.control, this.memory.dataWantedWord, 0) !== 0) this.#kickDue = true
    }
  }

  /** Whether the consumer asked to be woken and something was published since; true once for each request. */
  takeKick(): boolean {
    const due = this.#kickDue
    this.#kickDue = false
    return due
  }

  /** Whether a record with this payload fits now. */
  hasRoom(payloadBytes: number): boolean {
    const units = recordUnits(payloadBytes)
    const untilEnd = this.memory.capacityUnits - (this.#tail & this.#mask)
    return this.#fits(units > untilEnd ? untilEnd + units : units)
  }

  /**
   * Asks to be kicked when there is room, then looks once more. True: go to sleep until a KICK. False: there is
   * room already, and the request is taken back.
   */
  requestWakeup(payloadBytes: number): boolean {
    this.publish()
    // SYNC POINT room-wanted: this store before the look at the head; consumer.ts publishes the head, then looks.
    Atomics.store(this.memory.control, this.memory.roomWantedWord, 1)
    if (!this.hasRoom(payloadBytes)) return true
    this.cancelWakeup()
    return false
  }

  /** Takes a request back: the sleeper woke for another reason. */
  cancelWakeup(): void {
    Atomics.store(this.memory.control, this.memory.roomWantedWord, 0)
  }

  /** Whether the consumer has read all that was published. */
  get drained(): boolean {
    this.#readHead()
    return this.#headCache === this.#tail
  }

  #fits(units: number): boolean {
    if (units <= this.#freeUnits()) return true
    this.#readHead()
    return units <= this.#freeUnits()
  }

  #freeUnits(): number {
    return this.memory.capacityUnits - ((this.#tail - this.#headCache) >>> 0)
  }

  /**
   * Trust: the head is the consumer's, or anybody's who maps the region. It may only advance, and not past what
   * was published; else the ring is dead.
   */
  #readHead(): void {
    if (this.#failure !== undefined) throw this.#failure
    const untrustedHead = Atomics.load(this.memory.control, this.memory.headWord) >>> 0
    const advanced = (untrustedHead - this.#headCache) >>> 0
    if (advanced > (this.#publishedTail - this.#headCache) >>> 0) {
      this.#failure = new MvmError("protocol", "ring.head: outside what was published")
      throw this.#failure
    }
    this.#headCache = untrustedHead
  }
}
