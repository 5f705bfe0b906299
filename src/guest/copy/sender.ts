/**
 * @module guest/copy/sender
 *
 * The sending end of a copy: one task announces entries and sends the content that is asked for, another takes the
 * receiver's answers. Entries run ahead of their answers by the protocol's window.
 *
 * Trust: what the receiver says is a peer's. It can ask for what was announced to it and for nothing else, and once.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { errorFromPeer } from "../../wire/link.ts"
import type { ByteDuplex } from "../streams/byte-duplex.ts"
import type { ByteInput } from "./byte-input.ts"
import { BLOCK_BYTES } from "./blocks.ts"
import { HashFeed } from "./hash-feed.ts"
import { WINDOW, type CopyMessage, type CopyRequest } from "./messages.ts"
import { sendFile } from "./outgoing-file.ts"
import { Pacer } from "./pacer.ts"
import { measure, walk, type Entry, type Source, type Step } from "./source-tree.ts"
import { Tally, type CopyObserver, type Outcome } from "./tally.ts"
import { CopyWire } from "./wire.ts"
import { toWire } from "./wire-time.ts"

const PERMISSIONS = 0o777

export interface SenderOptions {
  readonly recursive: boolean
  /** Count first how much there is, for whoever shows progress at either end. */
  readonly totals: boolean
  readonly observer: CopyObserver
  /** What this end asks for, where it is the one that asks. */
  readonly request?: CopyRequest
}

/** An entry that was announced and is not settled. */
interface Sent {
  readonly index: number
  readonly entry: Entry
  state: "announced" | "wanted" | "sent"
  known: HashFeed | undefined
  sentBytes: number
  keptBytes: number
}

export class Sender {
  readonly #wire: CopyWire<"sender">
  readonly #sources: readonly Source[]
  readonly #options: SenderOptions
  readonly #tally: Tally
  readonly #pacer = new Pacer()
  readonly #buffer = new Uint8Array(BLOCK_BYTES)
  readonly #sent = new Map<number, Sent>()
  readonly #wanted: Sent[] = []
  /** The file whose digests come now. */
  #feed: HashFeed | undefined
  #entries = 0
  #isDone = false
  #failure: MvmError | undefined
  #hasNews = false
  #wake: (() => void) | undefined

  /** @param sources what to copy; their folders stay open until the end and are the caller's */
  constructor(stream: ByteDuplex, sources: readonly Source[], options: SenderOptions, input?: ByteInput) {
    this.#wire = new CopyWire(stream, "sender", input)
    this.#sources = sources
    this.#options = options
    this.#tally = new Tally(options.observer)
  }

  /** @throws MvmError as the receiver did, `protocol`, `truncated`, or why this end can send no more. */
  async run(): Promise<Tally> {
    const steps = walk(this.#sources, this.#options.recursive)
    try {
      const answers = this.#readAnswers().catch((error: unknown) => this.#fail(error))
      await this.#write(steps).catch((error: unknown) => this.#fail(error))
      await answers
      if (this.#failure) throw this.#failure
      await this.#wire.end()
      return this.#tally
    } finally {
      steps.return()
      for (const { entry } of this.#sent.values()) entry.parent.release()
      this.#sent.clear()
    }
  }

  #fail(error: unknown): void {
    if (this.#failure) return
    this.#failure = asMvmError(error)
    for (const { known } of this.#sent.values()) known?.fail(this.#failure)
    this.#wire.reset(this.#failure)
    this.#hasNews = true
    this.#wake?.()
  }

  async #write(steps: Generator<Step, void>): Promise<void> {
    const { request, totals } = this.#options
    if (request) this.#wire.send("REQUEST", request)
    if (totals) await this.#sendTotals()
    for (let isWalked = false; !isWalked || this.#sent.size > 0;) {
      if (this.#failure) throw this.#failure
      const file = this.#wanted.shift()
      if (file) {
        await this.#sendContent(file)
      } else if (!isWalked && this.#sent.size < WINDOW) {
        const next = steps.next()
        if (next.done) isWalked = true
        else this.#announce(next.value)
        if (this.#wire.isFull) await this.#wire.flush()
        await this.#pacer.pace()
      } else {
        await this.#wire.flush()
        await this.#nextAnswer()
      }
    }
    this.#wire.send("FINISH", {})
    await this.#wire.flush()
  }

  async #sendTotals(): Promise<void> {
    let entries = 0
    let lengthBytes = 0
    for (const found of measure(this.#sources, this.#options.recursive)) {
      entries += 1
      lengthBytes += found.lengthBytes
      await this.#pacer.pace()
    }
    this.#tally.total(entries, lengthBytes)
    this.#wire.send("TOTAL", { entries, lengthBytes })
  }

  #announce(step: Step): void {
    if (step.step === "leave") return this.#wire.send("LEAVE", {})
    if (step.step === "omitted") {
      const { path, error } = step
      const { code, message } = error
      this.#wire.send("OMITTED", { path: path.slice(0, 4095), code, message: message.slice(0, 400) })
      this.#tally.add({ path, kind: "file", outcome: "refused", lengthBytes: 0, sentBytes: 0, error })
      return
    }
    const { entry } = step
    const { kind, name, status, text } = entry
    const mode = status.mode & PERMISSIONS
    const time = toWire(status.modified)
    if (kind === "directory") this.#wire.send("DIRECTORY", { name, mode, time })
    else if (kind === "symlink") this.#wire.send("SYMLINK", { name, time, text: text ?? new Uint8Array(0) })
    else {
      const { lengthBytes, allocatedBytes } = status
      this.#wire.send("FILE", { name, mode, time, lengthBytes, allocatedBytes })
    }
    this.#entries += 1
    entry.parent.hold()
    const sent: Sent = {
      index: this.#entries,
      entry,
      state: "announced",
      known: undefined,
      sentBytes: 0,
      keptBytes: 0,
    }
    this.#sent.set(sent.index, sent)
  }

  async #sendContent(file: Sent): Promise<void> {
    const outlet = {
      wire: this.#wire,
      pacer: this.#pacer,
      buffer: this.#buffer,
      progress: (lengthBytes: number, sentBytes: number) => this.#tally.progress(lengthBytes, sentBytes),
    }
    const sent = await sendFile(outlet, file, file.known)
    if (sent instanceof MvmError) return this.#settle(file, "refused", sent)
    file.state = "sent"
    file.sentBytes = sent.sentBytes
    file.keptBytes = sent.keptBytes
  }

  async #readAnswers(): Promise<void> {
    while (!this.#isDone) {
      const message = await this.#wire.receive()
      if (message === null) throw new MvmError("truncated", "the receiver ended before everything was stored")
      await this.#handle(message)
      this.#hasNews = true
      this.#wake?.()
    }
  }

  async #handle(message: CopyMessage<"receiver">): Promise<void> {
    switch (message.name) {
      case "SAME":
        return this.#settle(this.#awaiting(message.fields.index, "announced"), "same")
      case "MADE": {
        const sent = this.#awaiting(message.fields.index, "announced")
        if (sent.entry.kind === "file") throw new MvmError("protocol", "MADE: it is a file")
        return this.#settle(sent, "copied")
      }
      case "WANT":
        this.#want(message.fields.index)
        return
      case "RESUME": {
        const { index, blocks } = message.fields
        const sent = this.#want(index)
        if (blocks === 0 || (this.#feed && !this.#feed.isComplete))
          throw new MvmError("protocol", "RESUME.blocks")
        this.#feed = new HashFeed(blocks)
        sent.known = this.#feed
        return
      }
      case "HASHES":
        if (!this.#feed) throw new MvmError("protocol", "HASHES of no file")
        return this.#feed.push(message.fields.digests)
      case "STORED": {
        const sent = this.#awaiting(message.fields.index, "sent")
        return this.#settle(sent, sent.keptBytes > 0 ? "resumed" : "copied")
      }
      case "REFUSED":
        return this.#refused(message.fields)
      case "DONE":
        if (this.#sent.size > 0) throw new MvmError("protocol", "DONE: not yet")
        this.#isDone = true
        return
      case "REQUEST":
        throw new MvmError("protocol", "REQUEST: not now")
    }
  }

  #want(index: number): Sent {
    const sent = this.#awaiting(index, "announced")
    if (sent.entry.kind !== "file") throw new MvmError("protocol", "WANT: it is no file")
    sent.state = "wanted"
    this.#wanted.push(sent)
    return sent
  }

  /** Trust: the receiver's words, which are shown and nothing else. */
  #refused({ index, code, message }: { index: number; code: string; message: string }): void {
    const sent = this.#sent.get(index)
    if (!sent || sent.state === "wanted")
      throw new MvmError("protocol", "REFUSED: nothing that was announced")
    const { code: known } = errorFromPeer(code, message)
    if (sent.entry.self) sent.entry.self.isRefused = true
    this.#settle(sent, "refused", new MvmError(known === "aborted" ? "io" : known, message))
  }

  #awaiting(index: number, state: Sent["state"]): Sent {
    const sent = this.#sent.get(index)
    if (sent?.state !== state) throw new MvmError("protocol", "an answer about nothing that was announced")
    return sent
  }

  #settle({ index, entry, sentBytes }: Sent, outcome: Outcome, error?: MvmError): void {
    this.#sent.delete(index)
    const { path, kind, status, parent } = entry
    parent.release()
    // Below a folder that was refused nothing is news.
    if (outcome === "refused" && parent.isRefused) {
      if (entry.self) entry.self.isRefused = true
      return
    }
    const lengthBytes = kind === "file" ? status.lengthBytes : 0
    this.#tally.add({ path, kind, outcome, lengthBytes, sentBytes, ...(error ? { error } : {}) })
  }

  /** Resolves once there is an answer that the last call did not see. */
  async #nextAnswer(): Promise<void> {
    if (!this.#hasNews) await new Promise<void>((resolve) => (this.#wake = resolve))
    this.#hasNews = false
  }
}
