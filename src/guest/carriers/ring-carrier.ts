/**
 * @module guest/carriers/ring-carrier
 *
 * Records between a command that may not map memory and its channel's rings, which the agent maps for it: the
 * mapping would show an ordinary user every region. The other end of the channel cannot tell.
 *
 * Trust: whatever the ring holds is the peer's, or anybody's who maps the memory. It is bounded here and
 * authenticated in the command.
 */

import { MvmError } from "../../lib/errors.ts"
import { CARRIED_WINDOW_BYTES, checkLength, costOf, payloadOf, recordOf } from "../../channel/record-queue.ts"
import { HEAD_BYTES, HEAD_WORDS } from "../../channel/record.ts"
import { BULK_PAYLOAD_BYTES, RingSink, RingSource } from "../../channel/ring-records.ts"
import type { Region } from "../../wire/local-messages.ts"
import { RegionEnd } from "../region-end.ts"
import type { Carrier, CommandPort } from "./carrier.ts"

/** Who waits looks again after this time even if no KICK came: a lost one costs this much and no more. */
const SLOW_POLL_MS = 500

/** A record is read from the ring only while the longest one would still fit the command's window. */
const LONGEST_COST_BYTES = costOf(HEAD_BYTES + BULK_PAYLOAD_BYTES)

export interface RingOptions {
  readonly region: Region
  readonly asker: boolean
  readonly command: CommandPort
  /** Wakes the other end. */
  kick(): void
}

export class RingCarrier implements Carrier {
  readonly #options: RingOptions
  readonly #memory: RegionEnd
  readonly #sink: RingSink
  readonly #source: RingSource
  readonly #head = new Uint32Array(HEAD_WORDS)
  /** From the command, not in the ring yet. */
  readonly #waiting: Uint8Array[] = []
  #givenBytes = 0
  #sunkBytes = 0
  #readBytes = 0
  #takenBytes = 0
  #isClosed = false
  readonly #timer: ReturnType<typeof setInterval>

  /** @throws MvmError when the region cannot be mapped or is none. */
  constructor(options: RingOptions) {
    this.#options = options
    this.#memory = new RegionEnd(options.region, options.asker)
    this.#sink = new RingSink(this.#memory.producer)
    // A copy of each record is made anyway, and the ring gets its room back at once.
    this.#source = new RingSource(this.#memory.consumer, "arena")
    this.#timer = setInterval(() => this.kicked(), SLOW_POLL_MS)
    setImmediate(() => this.kicked())
  }

  fromCommand(record: Uint8Array): void {
    if (this.#isClosed) return
    checkLength(record)
    if (record.length - HEAD_BYTES > this.#sink.maxPayloadBytes) {
      throw new MvmError("protocol", "RECORD: longer than one in this ring")
    }
    this.#givenBytes += costOf(record.length)
    if (this.#givenBytes - this.#sunkBytes > CARRIED_WINDOW_BYTES) {
      throw new MvmError("protocol", "RECORD: more than the window holds")
    }
    this.#waiting.push(record)
    this.kicked()
  }

  takenByCommand(takenBytes: number): void {
    if (this.#isClosed) return
    if (takenBytes < this.#takenBytes || takenBytes > this.#readBytes) {
      throw new MvmError("protocol", "CREDIT.taken: not what was given")
    }
    this.#takenBytes = takenBytes
    this.kicked()
  }

  kicked(): void {
    if (this.#isClosed) return
    try {
      this.#toRing()
      this.#toCommand()
    } catch (error) {
      this.#options.command.fail(error)
      this.close()
    }
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    clearInterval(this.#timer)
    this.#waiting.length = 0
    this.#memory.unmap()
  }

  #toRing(): void {
    const { producer } = this.#memory
    const before = this.#sunkBytes
    for (let record = this.#waiting[0]; record; record = this.#waiting[0]) {
      const payload = payloadOf(record, this.#head)
      if (!this.#sink.claim(payload.length)) {
        if (producer.requestWakeup(payload.length)) break
        continue
      }
      this.#sink.put(this.#head, payload)
      this.#sunkBytes += costOf(record.length)
      this.#waiting.shift()
    }
    this.#sink.publish()
    if (producer.takeKick()) this.#options.kick()
    if (this.#sunkBytes > before) this.#options.command.taken(this.#sunkBytes)
  }

  #toCommand(): void {
    const { consumer } = this.#memory
    while (this.#readBytes - this.#takenBytes + LONGEST_COST_BYTES <= CARRIED_WINDOW_BYTES) {
      const payload = this.#source.next(this.#head)
      if (!payload) {
        if (consumer.requestWakeup()) break
        continue
      }
      if (payload.length > BULK_PAYLOAD_BYTES) {
        throw new MvmError("record", `ring.record: ${payload.length} bytes`)
      }
      const record = recordOf(this.#head, payload)
      this.#readBytes += costOf(record.length)
      this.#options.command.record(record)
    }
    consumer.publish()
    if (consumer.takeKick()) this.#options.kick()
  }
}
