/**
 * @module guest/carriers/relay-carrier
 *
 * Records over the link. What the other end's command has not taken yet is kept here, so that a link that begins
 * anew (the MVM was started again, bytes were lost) loses nothing: each side says how far it received, and the other
 * begins again from there.
 *
 * ```
 *              begin (asker)                  link anew
 *   ┌─────────────────────────► sending ──────────────────► paused
 *   │                              ▲                          │
 *   begin (answerer) ─► paused ────┴───── RESUME received ────┘
 * ```
 *
 * Positions count as the window does (channel/record-queue). A record is taken only at the position that is due; any
 * other is a repetition, or follows something lost that comes again. That none is missing, swapped or forged is not
 * decided here: the command's opener authenticates every record under its number.
 */

import { MvmError } from "../../lib/errors.ts"
import { RELAY_WINDOW_BYTES, checkLength, costOf } from "../../channel/record-queue.ts"
import type { BulkQueue } from "../../wire/bulk-queue.ts"
import type { Fields, NamedMessage } from "../../wire/link.ts"
import type { Carrier, CommandPort } from "./carrier.ts"

/** A command is given more while it holds less than this. */
const UNTAKEN_BYTES = 128 * 1024

export interface RelayOptions {
  readonly channelId: Uint8Array
  /** hex of `channelId` */
  readonly key: string
  /** This end asked for the channel: the other one is there already. */
  readonly asker: boolean
  readonly bulk: BulkQueue
  readonly command: CommandPort
}

export class RelayCarrier implements Carrier {
  readonly #options: RelayOptions
  /** Sent and not taken, oldest first. */
  readonly #kept: Fields<"RECORD">[] = []
  #sentBytes = 0
  #takenByPeerBytes = 0
  /** Received and not given to the command yet, oldest first. */
  readonly #waiting: Uint8Array[] = []
  #receivedBytes = 0
  #givenBytes = 0
  #takenBytes = 0
  #isPaused: boolean
  #isClosed = false

  constructor(options: RelayOptions) {
    this.#options = options
    // The asker's agent takes records once it has the channel, and says so.
    this.#isPaused = !options.asker
    if (options.asker) this.#resume(true)
  }

  fromCommand(record: Uint8Array): void {
    if (this.#isClosed) return
    checkLength(record)
    const fields = { channelId: this.#options.channelId, offset: this.#sentBytes, record }
    this.#sentBytes += costOf(record.length)
    if (this.#sentBytes - this.#takenByPeerBytes > RELAY_WINDOW_BYTES) {
      throw new MvmError("protocol", "RECORD: more than the window holds")
    }
    this.#kept.push(fields)
    if (!this.#isPaused) this.#options.bulk.record(this.#options.key, fields)
  }

  takenByCommand(takenBytes: number): void {
    if (this.#isClosed) return
    if (takenBytes < this.#takenBytes || takenBytes > this.#givenBytes) {
      throw new MvmError("protocol", "CREDIT.taken: not what was given")
    }
    this.#takenBytes = takenBytes
    this.#give()
    const { channelId, key, bulk } = this.#options
    bulk.mark(key, "CREDIT", { channelId, taken: takenBytes })
  }

  /** Trust: all of it is the other end's, which harms this channel at most. */
  fromPeer(message: NamedMessage<"RECORD"> | NamedMessage<"CREDIT"> | NamedMessage<"RESUME">): void {
    if (this.#isClosed) return
    try {
      if (message.name === "RECORD") this.#received(message.fields)
      else if (message.name === "CREDIT") this.#takenByPeer(message.fields.taken)
      else this.#resumed(message.fields)
    } catch (error) {
      this.#options.command.fail(error)
    }
  }

  relinked(): void {
    if (this.#isClosed) return
    this.#isPaused = true
    this.#resume(false)
  }

  close(): void {
    this.#isClosed = true
    this.#kept.length = 0
    this.#waiting.length = 0
    this.#options.bulk.drop(this.#options.key)
  }

  #received({ offset, record }: Fields<"RECORD">): void {
    if (offset !== this.#receivedBytes) return
    checkLength(record)
    const receivedBytes = this.#receivedBytes + costOf(record.length)
    if (receivedBytes - this.#takenBytes > RELAY_WINDOW_BYTES) {
      throw new MvmError("protocol", "relay.record: the other end sent more than the window holds")
    }
    this.#receivedBytes = receivedBytes
    this.#waiting.push(record)
    this.#give()
  }

  /** What the command has and did not take stays little, so that it hears of a revocation before most of the window. */
  #give(): void {
    while (this.#givenBytes - this.#takenBytes < UNTAKEN_BYTES) {
      const record = this.#waiting.shift()
      if (!record) return
      this.#givenBytes += costOf(record.length)
      this.#options.command.record(record)
    }
  }

  #takenByPeer(takenBytes: number): void {
    if (takenBytes > this.#sentBytes) {
      throw new MvmError("protocol", "relay.taken: the other end took more than was sent")
    }
    // What is older than what is known says nothing new.
    if (takenBytes <= this.#takenByPeerBytes) return
    this.#takenByPeerBytes = takenBytes
    while (this.#kept.length > 0 && this.#kept[0]!.offset < takenBytes) this.#kept.shift()
    this.#options.command.taken(takenBytes)
  }

  #resumed({ received, taken, answer }: Fields<"RESUME">): void {
    if (received > this.#sentBytes) {
      throw new MvmError("protocol", "relay.received: the other end has more than was sent")
    }
    this.#takenByPeer(taken)
    const { bulk, key } = this.#options
    bulk.dropRecords(key)
    this.#isPaused = false
    for (const fields of this.#kept) if (fields.offset >= received) bulk.record(key, fields)
    if (!answer) this.#resume(true)
  }

  /** Says how far this end is. */
  #resume(answer: boolean): void {
    const { channelId, key, bulk } = this.#options
    bulk.mark(key, "RESUME", { channelId, received: this.#receivedBytes, taken: this.#takenBytes, answer })
  }
}
