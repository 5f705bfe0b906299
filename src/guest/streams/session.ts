/**
 * @module guest/streams/session
 *
 * Many streams on one duplex channel. The asker opens them; the answerer has a handler for each.
 *
 *     asker      RUNNING --finish, LEAVE came--> FINISHING --the last stream ended: EOF--> --EOF came--> OVER
 *     answerer   RUNNING --finish: LEAVE-------> FINISHING --EOF came: EOF-------------------------------> OVER
 *
 *     any failure, of the channel or of its peer: FAILED
 *
 * The asker has the last word on what it opens, so nothing that it opened meanwhile is lost when a service leaves.
 *
 * What came is always read at once, whoever sleeps: data goes to its stream, within the window that the stream gave,
 * so no stalled reader keeps the others waiting. What is to be sent goes out in turns of one record a stream, frames
 * before data. One pump a session does both; it works in slices and lets the event loop run between them, so a
 * process serves many sessions.
 */

import { KIND } from "../../channel/record.ts"
import type { Opener } from "../../channel/opener.ts"
import type { Sealer } from "../../channel/sealer.ts"
import { Sha256, discardOutput } from "../../lib/crypto.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { turn } from "../channel-end.ts"
import { decodeFrame, encodeFrame, type FrameFields, type FrameName, type StreamSide } from "./frames.ts"
import { GROWTH_BUDGET_BYTES, type GrowthBudget } from "./receive-window.ts"
import { Stream, type StreamOwner } from "./stream.ts"

/** Streams at once. */
export const MAX_STREAMS = 256
const LAST_NUMBER = 0xffff
/** Frames that wait for room: more than all streams together can have, unless the peer reads nothing. */
const MAX_SAID = 8 * MAX_STREAMS
/** What is opened before others get their turn. */
const SLICE_RECORDS = 64
const SLICE_BYTES = 1024 * 1024

/** What a session needs of its channel: `ChannelEnd` in a process, two ends of one ring in a test. */
export interface SessionChannel {
  readonly side: StreamSide
  readonly sealer: Sealer
  readonly opener: Opener
  /** This end's first record. */
  readonly handshake: Uint8Array
  /** @throws MvmError when the channel may not go on. */
  check(): void
  /** @throws MvmError `denied` when so many bytes in all are too many in one direction. */
  checkLength(lengthBytes: number): void
  /** Shows what was sealed. */
  flush(): void
  /** Gives read room back. */
  acknowledge(): void
  /**
   * Resolves, while others run, when there is something to open, when a record of `roomBytes` fits (if that is
   * wanted), when `interrupted` says so after {@link nudge}, or after a while.
   */
  rest(roomBytes: number | undefined, interrupted: () => boolean): Promise<void>
  nudge(): void
}

export interface SessionOptions {
  /** Whether content is hashed for the end of each direction. */
  readonly hashed?: boolean
  /** The answerer's: a stream with the asker's request. Trust: the request is the peer's. */
  readonly onStream?: (stream: Stream, request: Uint8Array) => void
}

interface Said {
  readonly number: number
  readonly payload: Uint8Array
}

export class Session implements StreamOwner {
  readonly budget: GrowthBudget = { leftBytes: GROWTH_BUDGET_BYTES }
  /** Of everything sent and received so far, where that is asked for. */
  readonly content: { readonly sent: Sha256; readonly received: Sha256 } | undefined
  readonly #channel: SessionChannel
  readonly #options: SessionOptions
  readonly #streams = new Map<number, Stream>()
  readonly #said: Said[] = []
  /** Streams with something to seal and credit for it, in the order of their turns. */
  readonly #turns = new Set<Stream>()
  #lastNumber = 0
  #failure: MvmError | undefined
  #begun = false
  #finishing = false
  #sealedEnd = false
  #transmitting = false
  /** What the first in line needs; undefined while nobody waits for room. */
  #roomBytes: number | undefined
  #nudged = false

  constructor(channel: SessionChannel, options: SessionOptions = {}) {
    this.#channel = channel
    this.#options = options
    this.content = options.hashed ? { sent: new Sha256(), received: new Sha256() } : undefined
  }

  get streams(): number {
    return this.#streams.size
  }

  /** Whether {@link open} would not fail now. */
  get isOpen(): boolean {
    return this.#failure === undefined && !this.#finishing
  }

  /**
   * A new stream. Data may follow at once; a service that refuses resets it.
   *
   * @throws MvmError as the session ended, `aborted` while it finishes, `busy` beyond {@link MAX_STREAMS}.
   */
  open(request: Uint8Array): Stream {
    if (this.#failure) throw this.#failure
    if (this.#finishing) throw new MvmError("aborted", "the session is ending")
    if (this.#streams.size >= MAX_STREAMS)
      throw new MvmError("busy", `more than ${MAX_STREAMS} streams at once`)
    do this.#lastNumber = (this.#lastNumber % LAST_NUMBER) + 1
    while (this.#streams.has(this.#lastNumber))
    const stream = new Stream(this.#lastNumber, this)
    this.#streams.set(stream.number, stream)
    this.say(stream, "OPEN", { request })
    return stream
  }

  /** No more streams: the session ends after the last one. The caller awaits {@link run}. */
  finish(): void {
    if (this.#finishing) return
    this.#finishing = true
    if (this.#channel.side === "answerer") this.#sayOf(0, "LEAVE", {})
    else this.#nudge()
  }

  /** Ends the session at once. The caller awaits {@link run}, which throws `error`. */
  fail(error: MvmError): void {
    if (this.#failure) return
    this.#failure = error
    for (const stream of [...this.#streams.values()]) stream.abandon(error)
    this.#nudge()
  }

  /** Breaks every stream off, and says so. */
  resetAll(error: MvmError): void {
    for (const stream of [...this.#streams.values()]) stream.reset(error)
  }

  /**
   * Carries everything until both ends have said that this was all.
   *
   * @throws MvmError as the session failed.
   */
  async run(): Promise<void> {
    try {
      this.#checked()
      if (!this.#channel.sealer.trySeal(KIND.HANDSHAKE, this.#channel.handshake)) {
        throw new MvmError("protocol", "the channel has no room for its first record")
      }
      this.#channel.flush()
      this.#begun = true
      while (!(this.#sealedEnd && this.#channel.opener.ended)) {
        const isBusy = this.#receive()
        this.#transmit()
        this.#channel.acknowledge()
        if (isBusy) await turn()
        else if (!(this.#sealedEnd && this.#channel.opener.ended)) await this.#rest()
        this.#checked()
      }
    } catch (error) {
      this.fail(asMvmError(error))
      throw this.#failure
    }
  }

  say<N extends FrameName>(stream: Stream, name: N, fields: FrameFields<N>): void {
    this.#sayOf(stream.number, name, fields)
  }

  #sayOf<N extends FrameName>(number: number, name: N, fields: FrameFields<N>): void {
    if (this.#failure || this.#sealedEnd) return
    if (this.#said.length >= MAX_SAID)
      return this.fail(new MvmError("protocol", "the other end reads nothing"))
    this.#said.push({ number, payload: encodeFrame(name, fields) })
    this.#sendNow()
  }

  ready(stream: Stream): void {
    this.#turns.add(stream)
    this.#sendNow()
  }

  forget(stream: Stream): void {
    this.#turns.delete(stream)
    this.#streams.delete(stream.number)
    if (this.#finishing && this.#streams.size === 0) this.#nudge()
  }

  /** What the caller just asked for, without waiting for the pump's next round where that is possible. */
  #sendNow(): void {
    if (this.#transmitting || !this.#begun) return this.#nudge()
    try {
      this.#transmit()
    } catch (error) {
      this.fail(asMvmError(error))
    }
  }

  /** @returns whether there may be more */
  #receive(): boolean {
    const { opener } = this.#channel
    let bytes = 0
    for (let records = 0; records < SLICE_RECORDS && bytes < SLICE_BYTES; records++) {
      const record = opener.ended ? null : opener.tryOpen()
      if (record === null) return false
      // The lease is looked at after the record was opened and before anything of it is released.
      this.#checked()
      bytes += record.plaintext.length
      if (record.kind === KIND.DATA) this.#data(record.stream, record.plaintext)
      else if (record.kind === KIND.CONTROL) this.#frame(record.stream, record.plaintext)
      else if (record.kind === KIND.EOF) this.#peerFinished()
    }
    return true
  }

  /** Trust: stream number and content are the peer's. */
  #data(number: number, plaintext: Uint8Array): void {
    this.#channel.checkLength(this.#channel.opener.plaintextBytes)
    this.content?.received.update(plaintext)
    const stream = this.#streams.get(number)
    if (stream) return stream.arrived(plaintext)
    // An end that said its last word may still be sent what was on its way.
    if (!this.#sealedEnd) throw new MvmError("protocol", `stream ${number}: data of an unknown stream`)
    discardOutput(plaintext)
  }

  /** Trust: stream number and frame are the peer's. */
  #frame(number: number, payload: Uint8Array): void {
    const frame = decodeFrame(payload, this.#channel.side === "asker" ? "answerer" : "asker")
    const stream = this.#streams.get(number)
    if (frame.name === "OPEN") return this.#opened(number, frame.fields.request)
    if (frame.name === "LEAVE") return this.#peerLeaves(number)
    if (stream) return stream.heard(frame)
    const isLate = frame.name === "CREDIT" || frame.name === "RESET" || frame.name === "STOP"
    if (!isLate && !this.#sealedEnd) throw new MvmError("protocol", `${frame.name}: of an unknown stream`)
  }

  #opened(number: number, request: Uint8Array): void {
    if (number === 0 || this.#streams.has(number)) {
      throw new MvmError("protocol", `OPEN: ${number} is no free number`)
    }
    if (this.#streams.size >= MAX_STREAMS) throw new MvmError("protocol", "OPEN: too many streams")
    if (this.#sealedEnd) return
    const stream = new Stream(number, this)
    this.#streams.set(number, stream)
    if (this.#options.onStream) this.#options.onStream(stream, request)
    else stream.reset(new MvmError("refused", "nothing is served here"))
  }

  #peerLeaves(number: number): void {
    if (number !== 0) throw new MvmError("protocol", "LEAVE: of a stream")
    this.#finishing = true
  }

  #peerFinished(): void {
    this.#finishing = true
    const error = new MvmError("aborted", "the other end ended the session")
    for (const stream of [...this.#streams.values()]) stream.abandon(error)
  }

  #transmit(): void {
    if (this.#transmitting || this.#sealedEnd) return
    this.#transmitting = true
    this.#roomBytes = undefined
    try {
      this.#checked()
      if (this.#sendFrames() && this.#sendData() && this.#isDone) {
        this.#sealedEnd = this.#seal(KIND.EOF, new Uint8Array(0), 0)
      }
      this.#channel.flush()
    } finally {
      this.#transmitting = false
    }
  }

  /** Whether this end has said all it will. */
  get #isDone(): boolean {
    const mayEnd = this.#channel.side === "asker" ? this.#finishing : this.#channel.opener.ended
    return mayEnd && this.#streams.size === 0
  }

  /** @returns whether all went */
  #sendFrames(): boolean {
    let sent = 0
    while (sent < this.#said.length) {
      const { number, payload } = this.#said[sent]!
      if (!this.#seal(KIND.CONTROL, payload, number)) break
      sent++
    }
    this.#said.splice(0, sent)
    return this.#said.length === 0
  }

  /** @returns whether all went for which there is credit */
  #sendData(): boolean {
    for (;;) {
      const [stream] = this.#turns
      if (!stream) return true
      const outcome = stream.advance((bytes) => this.#sealData(bytes, stream.number))
      if (outcome === "later") return false
      // To the end of the line, if it has more.
      this.#turns.delete(stream)
      if (stream.isReady) this.#turns.add(stream)
      // Its end may have been said.
      if (!this.#sendFrames()) return false
    }
  }

  #sealData(bytes: Uint8Array, number: number): number {
    const { sealer } = this.#channel
    const wanted = Math.min(bytes.length, sealer.maxPlaintextBytes)
    const take = Math.min(sealer.room(wanted), wanted)
    const block = bytes.subarray(0, Math.max(0, take))
    this.#channel.checkLength(sealer.plaintextBytes + block.length)
    if (take <= 0 || !this.#seal(KIND.DATA, block, number)) {
      this.#roomBytes = wanted
      return 0
    }
    this.content?.sent.update(block)
    return take
  }

  #seal(
    kind: typeof KIND.DATA | typeof KIND.CONTROL | typeof KIND.EOF,
    bytes: Uint8Array,
    number: number,
  ): boolean {
    if (this.#channel.sealer.trySeal(kind, bytes, number)) return true
    this.#roomBytes = bytes.length
    return false
  }

  #rest(): Promise<void> {
    this.#nudged = false
    return this.#channel.rest(this.#roomBytes, () => this.#nudged || this.#failure !== undefined)
  }

  #nudge(): void {
    this.#nudged = true
    this.#channel.nudge()
  }

  #checked(): void {
    if (this.#failure) throw this.#failure
    this.#channel.check()
  }
}
