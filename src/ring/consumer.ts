/**
 * @module ring/consumer
 *
 * The reading end of a ring: next, use, release. Its head lives here and is only ever written to the memory; the
 * producer's tail and each record's two words are read once and checked.
 *
 * Trust: every word read here may have been written by any VM that maps the region, at any instant. What is
 * returned is safe to index with; what the payload holds is for the record layer to authenticate. A broken cursor
 * or length kills the ring for good.
 *
 * Single-threaded use; one consumer for one ring, starting with a fresh region.
 */

import { MvmError } from "../lib/errors.ts"
import { PADDING, recordUnits, RECORD_HEADER_BYTES, UNIT_BYTES, type RingMemory } from "./layout.ts"

const FENCE = new Int32Array(new SharedArrayBuffer(4))

/** What {@link RingConsumer.next} returns when nothing is there. */
export const EMPTY = -1

export class RingConsumer {
  readonly memory: RingMemory
  /** Of the record {@link next} found: its payload length, checked to lie inside the ring. */
  payloadBytes = 0
  /** Of the record {@link next} found: its kind word, as read (an unsigned 32-bit number). */
  kindWord = 0

  readonly #mask: number
  readonly #batchUnits: number
  #head: number
  #publishedHead: number
  #tailCache: number
  #currentUnits = 0
  #kickDue = false
  #failure: MvmError | undefined

  /** @param start the cursor both ends start at, as the memory holds it: 0 in a fresh region */
  constructor(memory: RingMemory, start = 0) {
    this.memory = memory
    this.#head = this.#publishedHead = this.#tailCache = start
    this.#mask = memory.capacityUnits - 1
    this.#batchUnits = memory.capacityUnits / 8
  }

  /**
   * Finds the next record, skipping padding. Returns its byte offset in the ring (the header's; the payload is 64
   * bytes further) and sets {@link payloadBytes} and {@link kindWord}; or {@link EMPTY}. The record stays until
   * {@link release}; calling again before that finds it again.
   *
   * @throws MvmError `protocol` when the producer broke the ring.
   */
  next(): number {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#head === this.#tailCache && !this.#readTail()) {
      this.publish()
      return EMPTY
    }
    // At most twice: padding leads to index 0, where no padding can be.
    for (;;) {
      const index = this.#head & this.#mask
      const word = (index * UNIT_BYTES) >> 2
      const untrustedLength = Atomics.load(this.memory.words, word) >>> 0
      const untrustedKind = Atomics.load(this.memory.words, word + 1) >>> 0
      const untilEnd = this.memory.capacityUnits - index
      const available = (this.#tailCache - this.#head) >>> 0
      const units = recordUnits(untrustedLength)
      if (units > untilEnd || units > available)
        throw this.#die("record.length: reaches past what was published")
      if (untrustedKind !== PADDING) {
        this.payloadBytes = untrustedLength
        this.kindWord = untrustedKind
        this.#currentUnits = units
        return index * UNIT_BYTES
      }
      if (index === 0 || untrustedLength !== untilEnd * UNIT_BYTES - RECORD_HEADER_BYTES) {
        throw this.#die("record.padding: does not end with the ring")
      }
      if (units === available) throw this.#die("record.padding: nothing follows")
      this.#head = (this.#head + units) >>> 0
    }
  }

  /** Whether something is there to read. */
  get ready(): boolean {
    if (this.#failure !== undefined) throw this.#failure
    return this.#head !== this.#tailCache || this.#readTail()
  }

  /** The record found by {@link next} will not be looked at again. Its room is given back in batches. */
  release(): void {
    if (this.#currentUnits === 0) throw new RangeError("no record to release")
    this.#head = (this.#head + this.#currentUnits) >>> 0
    this.#currentUnits = 0
    if ((this.#head - this.#publishedHead) >>> 0 >= this.#batchUnits) this.publish()
  }

  /** Gives all released room back to the producer. */
  publish(): void {
    if (this.#publishedHead === this.#head) return
    this.#publishedHead = this.#head
    // SYNC POINT head: this store before the look at the producer's request (room-wanted in producer.ts).
    Atomics.store(this.memory.control, this.memory.headWord, this.#head | 0)
    if (Atomics.load(this.memory.control, this.memory.roomWantedWord) !== 0) {
      if (Atomics.exchange(this.memory.control, this.memory.roomWantedWord, 0) !== 0) this.#kickDue = true
    }
  }

  /** Whether the producer asked to be woken and room was given back since; true once for each request. */
  takeKick(): boolean {
    const due = this.#kickDue
    this.#kickDue = false
    return due
  }

  /**
   * Asks to be kicked when something comes, then looks once more. True: go to sleep until a KICK. False: something
   * is there already, and the request is taken back.
   */
  requestWakeup(): boolean {
    this.publish()
    // SYNC POINT data-wanted: this store before the look at the tail; producer.ts publishes the tail, then looks.
    Atomics.store(this.memory.control, this.memory.dataWantedWord, 1)
    if (!this.ready) return true
    this.cancelWakeup()
    return false
  }

  /** Takes a request back: the sleeper woke for another reason. */
  cancelWakeup(): void {
    Atomics.store(this.memory.control, this.memory.dataWantedWord, 0)
  }

  /** Trust: the tail may only advance, and never be further ahead than the ring is long; else the ring is dead. */
  #readTail(): boolean {
    // SYNC POINT tail: what the producer wrote before storing this is visible after loading it.
    const untrustedTail = Atomics.load(this.memory.control, this.memory.tailWord) >>> 0
    const available = (untrustedTail - this.#head) >>> 0
    // This end may still owe the producer room, so the bound is the published head's.
    if (
      (untrustedTail - this.#publishedHead) >>> 0 > this.memory.capacityUnits ||
      available > this.memory.capacityUnits
    ) {
      throw this.#die("tail: further ahead than the ring is long")
    }
    this.#tailCache = untrustedTail
    if (available === 0) return false
    // Loads from write-combining memory may pass each other; none passes a locked instruction.
    Atomics.add(FENCE, 0, 0)
    return true
  }

  #die(problem: string): MvmError {
    this.#failure = new MvmError("protocol", `ring.${problem}`)
    return this.#failure
  }
}
