/**
 * @module guest/copy/responder
 *
 * Answers each entry that the sender announces, in order: makes folders and links at once, and says of a file
 * whether it is wanted and what of it is here already.
 */

import { constants, fchmodSync, closeSync } from "node:fs"
import { equalBytes } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { sameTime, setModified, type FileStatus, type FileTime, type Folder } from "../../platform/folder.ts"
import { errorFromPeer } from "../../wire/link.ts"
import { BLOCK_BYTES } from "./blocks.ts"
import { entryFailure } from "./entry-failure.ts"
import { IncomingFile } from "./incoming-file.ts"
import { KnownBlocks } from "./known-blocks.ts"
import { MAX_FILE_BYTES, type LimitAccount } from "./limits.ts"
import type { CopyFields, CopyMessage } from "./messages.ts"
import {
  checkLinkText,
  checkName,
  MAX_DEPTH,
  MAX_PATH_BYTES,
  partialNameOf,
  type LinkPolicy,
} from "./names.ts"
import { Pacer } from "./pacer.ts"
import type { FileAttributes } from "./partial.ts"
import { Queue } from "./queue.ts"
import type { Settling } from "./settling.ts"
import type { EntryKind, Tally } from "./tally.ts"
import { TargetFolder } from "./target-folder.ts"
import type { CopyWire } from "./wire.ts"
import { fromWire } from "./wire-time.ts"

/** Block digests that are worked out before they are sent on. */
const HASHES_AT_ONCE = 64
const PERMISSIONS = 0o777

export type Announced = Extract<
  CopyMessage<"sender">,
  { readonly name: "DIRECTORY" | "FILE" | "SYMLINK" | "LEAVE" }
>

export interface ResponderOptions {
  readonly links: LinkPolicy
  readonly checksum: boolean
  readonly reveals: boolean
  /** Who sends; where nothing is revealed, partials are each sender's own. */
  readonly sender: Uint8Array | undefined
  readonly tally: Tally
  readonly account: LimitAccount
  readonly settling: Settling
  onWanted(file: IncomingFile): void
}

export class Responder {
  readonly #wire: CopyWire<"receiver">
  readonly #options: ResponderOptions
  readonly #queue = new Queue<Announced | "finish">()
  readonly #pacer = new Pacer()
  /** From the target folder to the one that was entered last. */
  readonly #stack: TargetFolder[]
  #entries = 0
  /** Depth as the reader sees it, who is ahead. */
  #announcedDepth = 0

  constructor(wire: CopyWire<"receiver">, folder: Folder, options: ResponderOptions) {
    this.#wire = wire
    this.#options = options
    this.#stack = [TargetFolder.root(folder, options.settling, options.reveals ? undefined : options.sender)]
  }

  /** Entries without an answer. */
  get backlog(): number {
    return this.#queue.length
  }

  /** @throws MvmError `protocol` when more is left than was entered, or the depth is none a sender offers */
  push(message: Announced): void {
    if (message.name === "DIRECTORY") this.#announcedDepth += 1
    if (message.name === "LEAVE") this.#announcedDepth -= 1
    if (this.#announcedDepth < 0) throw new MvmError("protocol", "LEAVE: not entered")
    if (this.#announcedDepth > MAX_DEPTH)
      throw new MvmError("protocol", `more than ${MAX_DEPTH} folders deep`)
    this.#queue.push(message)
  }

  /** Nothing more is announced. @throws MvmError `protocol` while folders are entered */
  finish(): void {
    if (this.#announcedDepth > 0) throw new MvmError("protocol", "FINISH inside a folder")
    this.#queue.push("finish")
  }

  fail(error: MvmError): void {
    this.#queue.fail(error)
  }

  /** Resolves when DONE was said. @throws MvmError what ends the copy */
  async run(): Promise<void> {
    for (;;) {
      const message = await this.#queue.next()
      if (message === "finish") break
      await this.#answer(message)
      if (this.#wire.isFull) await this.#wire.flush()
      await this.#pacer.pace()
    }
    this.#top.leave()
    await this.#options.settling.all()
    this.#wire.send("DONE", {})
    await this.#wire.flush()
  }

  close(): void {
    this.#top.abandonAll()
  }

  /** Trust: path and words are the peer's; they are shown and nothing else. */
  omitted({ path, code, message }: CopyFields<"OMITTED">): void {
    const error = this.senderError(code, message)
    this.#options.tally.add({ path, kind: "file", outcome: "refused", lengthBytes: 0, sentBytes: 0, error })
  }

  /** Trust: the peer's words. Its reasons are no verdict on what travelled. */
  senderError(code: string, message: string): MvmError {
    const { code: known } = errorFromPeer(code, message)
    return new MvmError(known === "refused" || known === "usage" ? known : "io", `the sender: ${message}`)
  }

  get #top(): TargetFolder {
    return this.#stack.at(-1) as TargetFolder
  }

  async #answer(message: Announced): Promise<void> {
    if (message.name === "LEAVE") {
      this.#stack.pop()?.leave()
      return
    }
    this.#entries += 1
    const index = this.#entries
    this.#options.account.addEntry()
    if (message.name === "FILE") {
      this.#options.account.addLength(message.fields.lengthBytes, message.fields.allocatedBytes)
    }
    try {
      checkName(message.fields.name)
      if (message.name === "DIRECTORY") this.#directory(index, message.fields)
      else if (message.name === "SYMLINK") this.#symlink(index, message.fields)
      else await this.#file(index, message.fields)
    } catch (error) {
      const failure = entryFailure(error)
      if (message.name === "DIRECTORY") this.#stack.push(this.#top.enterRefused())
      const kind = message.name.toLowerCase() as EntryKind
      this.#refuse(index, kind, message.fields.name, failure)
    }
  }

  #directory(index: number, { name, mode, time }: CopyFields<"DIRECTORY">): void {
    const attributes = { mode: mode & PERMISSIONS, modified: fromWire(time) }
    const top = this.#top
    const { entered, existed } = top.enter(name, attributes)
    this.#stack.push(entered)
    this.#wire.send(existed ? "SAME" : "MADE", { index })
    this.#done("directory", top.pathOf(name), existed ? "same" : "copied", 0)
  }

  #symlink(index: number, { name, time, text }: CopyFields<"SYMLINK">): void {
    const top = this.#top
    const { folder } = top
    checkLinkText(text, top.depth, this.#options.links)
    const modified = fromWire(time)
    const now = folder.status(name)
    if (now?.kind === "directory") throw new MvmError("refused", "a folder is in its place")
    if (now?.kind === "symlink" && equalBytes(folder.readLink(name), text)) {
      if (!sameTime(now.modified, modified)) folder.setTime(name, modified)
      this.#wire.send("SAME", { index })
      return this.#done("symlink", top.pathOf(name), "same", 0)
    }
    const partial = partialNameOf(name, top.owner)
    if (folder.status(partial)) folder.remove(partial)
    folder.link(partial, text)
    folder.setTime(partial, modified)
    folder.rename(partial, name)
    top.changed()
    this.#wire.send("MADE", { index })
    this.#done("symlink", top.pathOf(name), "copied", 0)
  }

  async #file(index: number, fields: CopyFields<"FILE">): Promise<void> {
    const top = this.#top
    const { name, lengthBytes } = fields
    if (top.pathOf(name).length > MAX_PATH_BYTES) throw new MvmError("refused", "the path is too long")
    if (lengthBytes > MAX_FILE_BYTES) throw new MvmError("refused", "it is too large")
    const attributes = { mode: fields.mode & PERMISSIONS, modified: fromWire(fields.time) }
    const now = top.folder.status(name)
    if (now?.kind === "directory") throw new MvmError("refused", "a folder is in its place")
    if (!this.#options.checksum && isSame(now, lengthBytes, attributes.modified)) {
      if (setMode(top.folder, name, now, attributes)) {
        this.#wire.send("SAME", { index })
        return this.#done("file", top.pathOf(name), "same", lengthBytes)
      }
    }
    const file = new IncomingFile({ index, target: top, name }, lengthBytes)
    const known = this.#knownOf(top, name, lengthBytes)
    if (known) file.knows(known)
    top.expect()
    this.#options.onWanted(file)
    if (known) await this.#resume(index, known)
    else this.#wire.send("WANT", { index })
  }

  #knownOf(top: TargetFolder, name: Uint8Array, lengthBytes: number): KnownBlocks | undefined {
    const most = Math.floor(lengthBytes / BLOCK_BYTES)
    const left = KnownBlocks.ofPartial(top, name, most)
    return left ?? (this.#options.reveals ? KnownBlocks.ofFile(top, name, most) : undefined)
  }

  async #resume(index: number, known: KnownBlocks): Promise<void> {
    this.#wire.send("RESUME", { index, blocks: known.count })
    for (let at = 0; at < known.count;) {
      const digests: Uint8Array[] = []
      while (at < known.count && digests.length < HASHES_AT_ONCE) {
        digests.push(known.next())
        at += 1
        await this.#pacer.pace()
      }
      this.#wire.send("HASHES", { digests: Buffer.concat(digests) })
      await this.#wire.flush()
    }
  }

  #refuse(index: number, kind: EntryKind, name: Uint8Array, error: MvmError): void {
    this.#wire.send("REFUSED", { index, code: error.code, message: error.message.slice(0, 400) })
    // Below a folder that was refused nothing is news.
    if (this.#top.isRefused && kind !== "directory") return
    const path = this.#top.pathOf(name)
    this.#options.tally.add({ path, kind, outcome: "refused", lengthBytes: 0, sentBytes: 0, error })
  }

  #done(kind: EntryKind, path: Uint8Array, outcome: "same" | "copied", lengthBytes: number): void {
    this.#options.tally.add({ path, kind, outcome, lengthBytes, sentBytes: 0 })
  }
}

function isSame(now: FileStatus | undefined, lengthBytes: number, modified: FileTime): now is FileStatus {
  return now?.kind === "file" && now.lengthBytes === lengthBytes && sameTime(now.modified, modified)
}

/** @returns false where the permissions differ and this user cannot set them: a new file then has them */
function setMode(
  folder: Folder,
  name: Uint8Array,
  now: FileStatus,
  { mode, modified }: FileAttributes,
): boolean {
  if (now.mode === mode) return true
  try {
    const fd = folder.openFile(name, constants.O_RDONLY)
    try {
      fchmodSync(fd, mode)
      setModified(fd, modified)
      return true
    } finally {
      closeSync(fd)
    }
  } catch {
    return false
  }
}
