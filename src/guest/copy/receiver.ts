/**
 * @module guest/copy/receiver
 *
 * The receiving end of a copy: three tasks on one stream. The reader takes what the sender says in order; the
 * responder makes folders and links and answers each entry; and files that are whole go to disk several at a time.
 * The reader never waits for the stream to take something, so the two ends cannot wait for each other.
 *
 * Trust: everything that comes is a peer's. Names are single components and reach calls that follow no link, lengths
 * are held to what was announced and to the receiver's limits, and what runs ahead is bounded by the window.
 */

import { MvmError, STATUS, asMvmError } from "../../lib/errors.ts"
import type { Folder } from "../../platform/folder.ts"
import type { ByteDuplex } from "../streams/byte-duplex.ts"
import type { ByteInput } from "./byte-input.ts"
import { entryFailure } from "./entry-failure.ts"
import { IncomingFile } from "./incoming-file.ts"
import { LimitAccount, MAX_FILE_BYTES, type Limits } from "./limits.ts"
import { MAX_DATA_BYTES, WINDOW, type CopyFields, type CopyMessage, type CopyRequest } from "./messages.ts"
import type { LinkPolicy } from "./names.ts"
import { Pacer } from "./pacer.ts"
import { Responder, type Announced } from "./responder.ts"
import { nextPhase, type Phase } from "./receiver-phase.ts"
import { Settling } from "./settling.ts"
import { Tally, type CopyObserver } from "./tally.ts"
import { CopyWire } from "./wire.ts"
import { fromWire } from "./wire-time.ts"

/** Files on their way to the disk at a time: journals take several for little more than one. */
const STORING = 16
const PERMISSIONS = 0o777

export interface ReceiverOptions {
  readonly limits: Limits
  readonly links: LinkPolicy
  /** Compare contents where length and time are the same, too. */
  readonly checksum: boolean
  /** Whether the sender may learn digests of files that are here already. */
  readonly reveals: boolean
  /** The sender's UUID, where the one that asks is the one that sends. */
  readonly sender?: Uint8Array | undefined
  readonly observer: CopyObserver
  /** What this end asks for, where it is the one that asks. */
  readonly request?: CopyRequest
}

export class Receiver {
  readonly #wire: CopyWire<"receiver">
  readonly #responder: Responder
  readonly #tally: Tally
  readonly #account: LimitAccount
  readonly #pacer = new Pacer()
  readonly #settling = new Settling((error) => this.#fail(error))
  /** Wanted files by index, until they are stored or given up. */
  readonly #active = new Map<number, IncomingFile>()
  #phase: Phase = "entries"
  #current: IncomingFile | undefined
  #failure: MvmError | undefined

  /** @param folder the target, which is closed at the end */
  constructor(stream: ByteDuplex, folder: Folder, options: ReceiverOptions, input?: ByteInput) {
    this.#wire = new CopyWire(stream, "receiver", input)
    this.#tally = new Tally(options.observer)
    this.#account = new LimitAccount(options.limits, () => folder.freeBytes())
    this.#responder = new Responder(this.#wire, folder, {
      ...options,
      sender: options.sender,
      tally: this.#tally,
      account: this.#account,
      settling: this.#settling,
      onWanted: (file) => this.#active.set(file.index, file),
    })
    if (options.request) this.#wire.send("REQUEST", options.request)
  }

  /** @throws MvmError as the sender did, `protocol`, `truncated`, or why this end can take no more. */
  async run(): Promise<Tally> {
    try {
      const answering = this.#responder.run().catch((error: unknown) => this.#fail(error))
      await this.#read().catch((error: unknown) => this.#fail(error))
      await answering
      await this.#settling.all()
      if (this.#failure) throw this.#failure
      await this.#wire.end()
      return this.#tally
    } finally {
      this.#letGo()
    }
  }

  /** What a broken stream left half stays for the next copy, where that is worth it. */
  #letGo(): void {
    const keep = this.#failure !== undefined && isBreak(this.#failure)
    for (const file of this.#active.values()) {
      try {
        file.giveUp(keep)
      } catch {
        // Its folder is gone, or was taken away from this user: there is nothing to keep then.
      }
    }
    for (const file of this.#active.values()) file.target.abandonAll()
    this.#responder.close()
  }

  #fail(error: unknown): void {
    if (this.#failure) return
    this.#failure = asMvmError(error)
    this.#responder.fail(this.#failure)
    this.#wire.reset(this.#failure)
  }

  async #read(): Promise<void> {
    while (this.#phase !== "finished") {
      const message = await this.#wire.receive()
      if (message === null) throw new MvmError("truncated", "the sender ended before everything was copied")
      this.#phase = nextPhase(this.#phase, message.name)
      await this.#handle(message)
      await this.#pacer.pace()
    }
  }

  async #handle(message: CopyMessage<"sender">): Promise<void> {
    switch (message.name) {
      case "TOTAL":
        return this.#tally.total(message.fields.entries, message.fields.lengthBytes)
      case "OMITTED":
        return this.#responder.omitted(message.fields)
      case "DIRECTORY":
      case "FILE":
      case "SYMLINK":
      case "LEAVE":
        return this.#announce(message)
      case "BEGIN":
        return this.#begin(message.fields)
      case "DATA":
        return this.#data(message.fields.lengthBytes)
      case "HOLE":
        return this.#hole(message.fields.lengthBytes)
      case "KEEP":
        return this.#keep(message.fields.blocks)
      case "END":
        return this.#end(message.fields.digest)
      case "DROP":
        return this.#drop(message.fields)
      case "FINISH":
        return this.#finish()
      case "REQUEST":
        throw new MvmError("protocol", "REQUEST: not now")
    }
  }

  #announce(message: Announced): void {
    // A sender that keeps to the window is never near this: each entry is counted until its answer was sent.
    if (this.#responder.backlog + this.#active.size > 3 * WINDOW) {
      throw new MvmError("protocol", "more entries than the window admits")
    }
    this.#responder.push(message)
  }

  #begin({ index, mode, time, lengthBytes }: CopyFields<"BEGIN">): void {
    const file = this.#active.get(index)
    if (!file || file.isStoring || (this.#current ?? file) !== file) {
      throw new MvmError("protocol", "BEGIN: a file that is not wanted")
    }
    if (lengthBytes > MAX_FILE_BYTES) throw new MvmError("protocol", "BEGIN.lengthBytes: no length of a file")
    if (lengthBytes > file.lengthBytes) this.#account.addLength(lengthBytes - file.lengthBytes, 0)
    this.#current = file
    file.begin(lengthBytes, { mode: mode & PERMISSIONS, modified: fromWire(time) })
  }

  async #data(lengthBytes: number): Promise<void> {
    const file = this.#mustReceive()
    if (lengthBytes === 0 || lengthBytes > MAX_DATA_BYTES) throw new MvmError("protocol", "DATA.lengthBytes")
    await this.#wire.content(lengthBytes, (piece) => file.write(piece, this.#account))
    this.#progress(file)
  }

  #hole(lengthBytes: number): void {
    const file = this.#mustReceive()
    if (lengthBytes === 0) throw new MvmError("protocol", "HOLE.lengthBytes")
    file.skip(lengthBytes)
    this.#progress(file)
  }

  async #keep(blocks: number): Promise<void> {
    const file = this.#mustReceive()
    if (blocks === 0) throw new MvmError("protocol", "KEEP.blocks")
    for (let count = 0; count < blocks; count += 1) {
      file.keepBlock()
      await this.#pacer.pace()
    }
    this.#progress(file)
  }

  async #end(digest: Uint8Array): Promise<void> {
    const file = this.#mustReceive()
    this.#current = undefined
    if (!file.agrees(digest)) {
      if (file.keptBytes === 0) throw new MvmError("digest_mismatch", "a file is not what its sender read")
      file.failure = new MvmError("io", "what was here of it changed meanwhile")
    }
    if (file.failure) return this.#refused(file, file.failure)
    file.isStoring = true
    this.#settling.add(this.#store(file))
    if (this.#settling.count >= STORING) await this.#settling.one()
  }

  async #store(file: IncomingFile): Promise<void> {
    try {
      await file.store()
    } catch (error) {
      return this.#refused(file, entryFailure(error))
    }
    this.#active.delete(file.index)
    this.#wire.send("STORED", { index: file.index })
    const { lengthBytes, sentBytes } = file
    const outcome = file.keptBytes > 0 ? "resumed" : "copied"
    this.#tally.add({ path: file.path, kind: "file", outcome, lengthBytes, sentBytes })
    file.target.done()
  }

  #refused(file: IncomingFile, error: MvmError): void {
    this.#wire.send("REFUSED", { index: file.index, code: error.code, message: error.message.slice(0, 400) })
    this.#giveUp(file, error)
  }

  /** Trust: the words are the peer's. */
  #drop({ index, code, message }: CopyFields<"DROP">): void {
    const file = this.#active.get(index)
    if (!file || file.isStoring || (this.#current ?? file) !== file) {
      throw new MvmError("protocol", "DROP: a file that is not wanted")
    }
    this.#current = undefined
    this.#giveUp(file, this.#responder.senderError(code, message))
  }

  #giveUp(file: IncomingFile, error: MvmError): void {
    this.#active.delete(file.index)
    file.giveUp(false)
    const { lengthBytes, sentBytes } = file
    this.#tally.add({ path: file.path, kind: "file", outcome: "refused", lengthBytes, sentBytes, error })
    file.target.done()
  }

  #finish(): void {
    if (this.#active.size > 0) throw new MvmError("protocol", "FINISH before everything was stored")
    this.#responder.finish()
  }

  #mustReceive(): IncomingFile {
    if (!this.#current) throw new MvmError("protocol", "content of no file")
    return this.#current
  }

  #progress(file: IncomingFile): void {
    this.#tally.progress(file.offset, file.sentBytes)
  }
}

/** Whether the copy may go on where it ended: not after this end refused it, or the other one misbehaved. */
function isBreak({ code, status }: MvmError): boolean {
  return status === STATUS.unreachable || status === STATUS.interrupted || code === "truncated"
}
