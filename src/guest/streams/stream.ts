/**
 * @module guest/streams/stream
 *
 * One stream of a session, as one end has it. Its two directions know nothing of each other:
 *
 *     sending      OPEN --end, a STOP came: say END----------------------> ENDED
 *                  OPEN --reset, a RESET came: say RESET-----------------> ENDED
 *
 *     receiving    OPEN --an END or RESET came---------------------------> ENDED
 *                  OPEN --stop, reset----> DISCARDING --END, RESET came--> ENDED
 *
 * Both ENDED: the session forgets the stream, and its number is free. What a stalled reader leaves lying is
 * bounded by the window; what a stalled sender waits with stays in its caller's buffer.
 */

import { MvmError, STATUS, isErrorCode } from "../../lib/errors.ts"
import { discardOutput } from "../../lib/crypto.ts"
import { clip } from "../../wire/link.ts"
import type { ByteDuplex } from "./byte-duplex.ts"
import type { FrameFields, FrameName, StreamFrame } from "./frames.ts"
import { HeldBytes } from "./held-bytes.ts"
import { FIRST_WINDOW_BYTES, ReceiveWindow, type GrowthBudget } from "./receive-window.ts"

/** Shorter records than this are not worth sealing while the sender is sure to get more credit. */
const LEAST_BYTES = 16 * 1024
/** Credit beyond this is a fault, not generosity. */
const MAX_ALLOWANCE_BYTES = 2 ** 40
const MAX_REASON_BYTES = 500

/** Statuses of failures that only this end can find: a peer's word does not make them so. */
const OWN_STATUSES: ReadonlySet<number> = new Set([STATUS.attestation, STATUS.revoked, STATUS.interrupted])

/** What a stream needs of its session. */
export interface StreamOwner {
  readonly budget: GrowthBudget
  /** Queues a frame; it follows what the stream sealed before. */
  say<N extends FrameName>(stream: Stream, name: N, fields: FrameFields<N>): void
  /** The stream has something to seal and may. */
  ready(stream: Stream): void
  /** Both directions are over. */
  forget(stream: Stream): void
}

interface Job {
  /** undefined: this is where the stream's data ends */
  readonly bytes: Uint8Array | undefined
  at: number
  resolve(): void
  reject(error: MvmError): void
}

/** What became of an attempt to seal one record: `later` needs room in the ring, `blocked` credit. */
export type Sealed = "sealed" | "later" | "blocked"

export class Stream implements ByteDuplex {
  readonly number: number
  readonly #owner: StreamOwner
  readonly #window: ReceiveWindow
  readonly #held = new HeldBytes()
  #allowanceBytes = FIRST_WINDOW_BYTES
  #sending: "open" | "ended" = "open"
  #receiving: "open" | "discarding" | "ended" = "open"
  #jobs: Job[] = []
  #writeFailure: MvmError | undefined
  #onUnread: ((error: MvmError) => void) | undefined
  #readFailure: MvmError | undefined
  #reader: PromiseWithResolvers<Uint8Array | null> | undefined
  #forgotten = false
  readonly #broken = new AbortController()

  constructor(number: number, owner: StreamOwner) {
    this.number = number
    this.#owner = owner
    this.#window = new ReceiveWindow(owner.budget)
  }

  /** Fires, with the reason, when the stream is broken off before both its directions came to their end. */
  get broken(): AbortSignal {
    return this.#broken.signal
  }

  async read(): Promise<Uint8Array | null> {
    if (this.#readFailure) throw this.#readFailure
    const bytes = this.#held.take()
    if (bytes) {
      this.#credit(bytes.length)
      return bytes
    }
    if (this.#receiving === "ended") return null
    if (this.#reader) throw new RangeError("one read at a time")
    this.#reader = Promise.withResolvers()
    return this.#reader.promise
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length > 0) await this.#queue(bytes)
  }

  async end(): Promise<void> {
    if (this.#sending === "open") await this.#queue(undefined)
  }

  /** @param listener the only one; called with `sink` when a STOP came, or has come. */
  whenUnread(listener: (error: MvmError) => void): void {
    this.#onUnread = listener
    if (this.#writeFailure?.code === "sink") listener(this.#writeFailure)
  }

  /** This end reads no more; what it sends goes on. The other end's writes fail with `sink`. Idempotent. */
  stop(error: MvmError): void {
    if (this.#receiving !== "open") return
    this.#receiving = "discarding"
    this.#readFails(error)
    this.#owner.say(this, "STOP", reasonOf(error))
  }

  reset(error: MvmError): void {
    if (this.#forgotten) return
    this.#readFails(error)
    this.#writeFails(error)
    if (this.#receiving === "open") this.#receiving = "discarding"
    this.#sending = "ended"
    this.#owner.say(this, "RESET", reasonOf(error))
    this.#broken.abort(error)
    this.#settle()
  }

  /** The session is over: both directions end here, and nothing is said about it. */
  abandon(error: MvmError): void {
    this.#readFails(error)
    this.#writeFails(error)
    this.#sending = this.#receiving = "ended"
    this.#broken.abort(error)
    this.#settle()
  }

  /** Whether there is something to seal and credit to do it. */
  get isReady(): boolean {
    const job = this.#jobs[0]
    if (!job) return false
    return job.bytes === undefined || this.#allowanceBytes >= Math.min(job.bytes.length - job.at, LEAST_BYTES)
  }

  /**
   * One record more, or the end.
   *
   * @param seal seals up to all of what it is given and returns how much; 0 or less: no room
   */
  advance(seal: (bytes: Uint8Array) => number): Sealed {
    const job = this.#jobs[0]
    if (!job || !this.isReady) return "blocked"
    if (job.bytes === undefined) {
      this.#sending = "ended"
      this.#owner.say(this, "END", {})
      this.#settle()
    } else {
      const sealed = seal(job.bytes.subarray(job.at, job.at + this.#allowanceBytes))
      if (sealed <= 0) return "later"
      job.at += sealed
      this.#allowanceBytes -= sealed
      if (job.at < job.bytes.length) return "sealed"
    }
    this.#jobs.shift()
    job.resolve()
    return "sealed"
  }

  /** Trust: `plaintext` is the peer's. @throws MvmError `protocol`. */
  arrived(plaintext: Uint8Array): void {
    if (this.#receiving === "ended") throw new MvmError("protocol", "stream: data after its end")
    if (plaintext.length === 0) throw new MvmError("protocol", "stream: data of no length")
    this.#window.arrived(plaintext.length)
    if (this.#receiving === "discarding") return discardOutput(plaintext)
    const reader = this.#reader
    if (!reader) return this.#held.add(plaintext)
    this.#reader = undefined
    this.#credit(plaintext.length)
    reader.resolve(plaintext)
  }

  /** Trust: the frame is the peer's. @throws MvmError `protocol`. */
  heard(frame: Exclude<StreamFrame, { name: "OPEN" | "LEAVE" }>): void {
    switch (frame.name) {
      case "CREDIT":
        this.#allowanceBytes += frame.fields.bytes
        if (this.#allowanceBytes > MAX_ALLOWANCE_BYTES)
          throw new MvmError("protocol", "CREDIT.bytes: too many")
        if (this.isReady) this.#owner.ready(this)
        return
      case "END":
        if (this.#receiving === "ended") throw new MvmError("protocol", "END: said before")
        this.#receiving = "ended"
        if (this.#held.isEmpty) this.#reader?.resolve(null)
        this.#reader = undefined
        return this.#settle()
      case "STOP": {
        if (this.#sending === "ended") return
        this.#sending = "ended"
        const error = unread(peerError(frame.fields))
        this.#writeFails(error)
        this.#owner.say(this, "END", {})
        this.#settle()
        return this.#onUnread?.(error)
      }
      case "RESET": {
        const error = peerError(frame.fields)
        this.#receiving = "ended"
        this.#readFails(error)
        if (this.#sending === "open") {
          this.#sending = "ended"
          this.#writeFails(error)
          this.#owner.say(this, "RESET", reasonOf(error))
        }
        this.#broken.abort(error)
        return this.#settle()
      }
    }
  }

  #queue(bytes: Uint8Array | undefined): Promise<void> {
    if (this.#writeFailure) return Promise.reject(this.#writeFailure)
    if (this.#sending === "ended") return Promise.reject(new MvmError("sink", "the stream was ended"))
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#jobs.push({ bytes, at: 0, resolve, reject })
    if (this.isReady) this.#owner.ready(this)
    return promise
  }

  #credit(takenBytes: number): void {
    const bytes = this.#window.taken(takenBytes)
    if (bytes > 0 && this.#receiving === "open") this.#owner.say(this, "CREDIT", { bytes })
  }

  #readFails(error: MvmError): void {
    this.#readFailure ??= error
    this.#held.clear()
    this.#reader?.reject(this.#readFailure)
    this.#reader = undefined
  }

  #writeFails(error: MvmError): void {
    this.#writeFailure ??= error
    for (const job of this.#jobs.splice(0)) job.reject(this.#writeFailure)
  }

  #settle(): void {
    if (this.#forgotten || this.#sending !== "ended" || this.#receiving !== "ended") return
    this.#forgotten = true
    this.#window.close()
    this.#owner.forget(this)
  }
}

function reasonOf({ code, message }: MvmError): { code: string; message: string } {
  return { code, message: clip(message.replaceAll("\0", "").toWellFormed(), MAX_REASON_BYTES) }
}

/** Trust: code and message are the peer's own words. */
function peerError({ code, message }: { code: string; message: string }): MvmError {
  const known = isErrorCode(code) && code !== "internal" ? new MvmError(code, message) : undefined
  return known && !OWN_STATUSES.has(known.status) ? known : new MvmError("peer_failed", message)
}

function unread(cause: MvmError): MvmError {
  return new MvmError("sink", `the other end reads no more: ${cause.message}`, { cause })
}
