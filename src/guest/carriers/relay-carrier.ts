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
 * A RESUME makes this end send up to a window once more, so they are answered a few at once and then one a second: what
 * the other end asks of this VM's link stays little, and an honest one that lost its link waits a moment at most.
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

/** RESUMEs that are answered with records at once, and how long after another one is. */
const RESUMES_AT_ONCE = 4
const RESUME_PERIOD_MS = 1000

/** Time, and the way to do something later; what it returns calls that off. */
export interface RelayClock {
  now(): number
  after(ms: number, work: () => void): () => void
}

const REAL_CLOCK: RelayClock = {
  now: () => performance.now(),
  after: (ms, work) => {
    const timer = setTimeout(work, ms)
    return () => clearTimeout(timer)
  },
}

export interface RelayOptions {
  readonly channelId: Uint8Array
  /** hex of `channelId` */
  readonly key: string
  /** This end asked for the channel: the other one is there already. */
  readonly asker: boolean
  readonly bulk: BulkQueue
  readonly command: CommandPort
  readonly clock?: RelayClock
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
  readonly #clock: RelayClock
  /** RESUMEs that may be answered at once, as of when. */
  #resumes = RESUMES_AT_ONCE
  #resumesAtMs: number
  /** From where the other end wants records once more. */
  #wantedBytes = 0
  /** Calls the next answer off, while one is due. */
  #callOff: (() => void) | undefined

  constructor(options: RelayOptions) {
    this.#options = options
    this.#clock = options.clock ?? REAL_CLOCK
    this.#resumesAtMs = this.#clock.now()
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
    this.#callOff?.()
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
    this.#options.bulk.dropRecords(this.#options.key)
    this.#wantedBytes = received
    this.#isPaused = true
    if (!this.#callOff) this.#sendAgain()
    if (!answer) this.#resume(true)
  }

  /** All that the other end lacks, now or when it is time for it. */
  #sendAgain(): void {
    const { bulk, key } = this.#options
    const lacking = this.#kept.filter(({ offset }) => offset >= this.#wantedBytes)
    const waitMs = lacking.length > 0 ? this.#takeResume() : 0
    if (waitMs > 0) {
      this.#callOff = this.#clock.after(waitMs, () => {
        this.#callOff = undefined
        this.#sendAgain()
      })
      return
    }
    this.#isPaused = false
    for (const fields of lacking) bulk.record(key, fields)
  }

  /** @returns 0, or how many ms it is until there is one */
  #takeResume(): number {
    const now = this.#clock.now()
    const more = (now - this.#resumesAtMs) / RESUME_PERIOD_MS
    this.#resumesAtMs = now
    this.#resumes = Math.min(RESUMES_AT_ONCE, this.#resumes + more)
    if (this.#resumes < 1) return Math.ceil((1 - this.#resumes) * RESUME_PERIOD_MS)
    this.#resumes -= 1
    return 0
  }

  /** Says how far this end is. */
  #resume(answer: boolean): void {
    const { channelId, key, bulk } = this.#options
    bulk.mark(key, "RESUME", { channelId, received: this.#receivedBytes, taken: this.#takenBytes, answer })
  }
}
