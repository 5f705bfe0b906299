/**
 * @module guest/copy/outgoing-file
 *
 * The content of one file, from its first byte to its last: data as it is, holes as holes, and blocks that the
 * receiver has already by their number alone. A file that changed while it was read is read again.
 */

import { closeSync, constants } from "node:fs"
import { equalBytes } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { sameTime, statusOf, type FileStatus } from "../../platform/folder.ts"
import { BLOCK_BYTES, ContentDigest, Extents, blockDigest, readBlock, type Block } from "./blocks.ts"
import { entryFailure } from "./entry-failure.ts"
import type { HashFeed } from "./hash-feed.ts"
import type { Pacer } from "./pacer.ts"
import type { Entry } from "./source-tree.ts"
import type { CopyWire } from "./wire.ts"
import { toWire } from "./wire-time.ts"

/** How often a file that changes is begun anew. */
const TRIES = 3
const PERMISSIONS = 0o777

/** What sending needs besides the file. */
export interface Outlet {
  readonly wire: CopyWire<"sender">
  readonly pacer: Pacer
  /** Of a block's length; what is in it is sent before it is used again. */
  readonly buffer: Uint8Array
  progress(lengthBytes: number, sentBytes: number): void
}

export interface SentContent {
  readonly lengthBytes: number
  readonly sentBytes: number
  readonly keptBytes: number
}

/**
 * @param known what the receiver has
 * @returns what was sent; or why the receiver was told to drop the file
 * @throws MvmError what ends the copy
 */
export async function sendFile(
  outlet: Outlet,
  { entry, index }: { entry: Entry; index: number },
  known: HashFeed | undefined,
): Promise<SentContent | MvmError> {
  let feed = known
  try {
    for (let round = 0; round < TRIES; round += 1) {
      const sent = await sendOnce(outlet, { entry, index }, feed)
      if (sent) return sent
      feed?.discard()
      feed = undefined
    }
    throw new MvmError("io", "it changes while it is copied")
  } catch (error) {
    const failure = entryFailure(error)
    outlet.wire.send("DROP", { index, code: failure.code, message: failure.message.slice(0, 400) })
    return failure
  } finally {
    known?.discard()
  }
}

/** @returns undefined if the file changed meanwhile */
async function sendOnce(
  outlet: Outlet,
  { entry, index }: { entry: Entry; index: number },
  known: HashFeed | undefined,
): Promise<SentContent | undefined> {
  const fd = entry.parent.folder.openFile(entry.name, constants.O_RDONLY)
  try {
    const before = statusOf(fd)
    if (before.kind !== "file") throw new MvmError("io", "it is no file any more")
    const { mode, modified, lengthBytes } = before
    outlet.wire.send("BEGIN", { index, mode: mode & PERMISSIONS, time: toWire(modified), lengthBytes })
    const sender = new ContentSender(outlet, fd, before)
    const digest = await sender.run(known)
    if (!digest || hasChanged(before, statusOf(fd))) return undefined
    outlet.wire.send("END", { digest })
    return { lengthBytes, sentBytes: sender.sentBytes, keptBytes: sender.keptBytes }
  } finally {
    closeSync(fd)
  }
}

class ContentSender {
  sentBytes = 0
  keptBytes = 0
  readonly #outlet: Outlet
  readonly #fd: number
  readonly #lengthBytes: number
  readonly #extents: Extents
  readonly #digest = new ContentDigest()
  /** What is said with the next piece of another kind: so many blocks, or bytes of a hole. */
  #keeping = 0
  #skipping = 0

  constructor(outlet: Outlet, fd: number, { lengthBytes, allocatedBytes }: FileStatus) {
    this.#outlet = outlet
    this.#fd = fd
    this.#lengthBytes = lengthBytes
    this.#extents = new Extents(fd, lengthBytes, allocatedBytes >= lengthBytes)
  }

  /** @returns the digest of the content, or undefined if the file became shorter */
  async run(known: HashFeed | undefined): Promise<Uint8Array | undefined> {
    const { buffer, pacer } = this.#outlet
    let feed = known
    for (let offset = 0; offset < this.#lengthBytes;) {
      if (!feed) offset = this.#skipHole(offset)
      const endOffset = Math.min(offset + BLOCK_BYTES, this.#lengthBytes)
      const block = readBlock(this.#fd, this.#extents, { offset, endOffset }, buffer)
      if (block.bytes.length < endOffset - offset) return undefined
      const digest = blockDigest(block)
      this.#digest.updateBlock(digest, block.bytes.length)
      const there = await feed?.next()
      if (!there) feed = undefined
      if (there && block.bytes.length === BLOCK_BYTES && equalBytes(there, digest)) this.#keep()
      else await this.#sendBlock(offset, block)
      offset = endOffset
      this.#outlet.progress(offset, this.sentBytes)
      await pacer.pace()
    }
    this.#sayKept()
    this.#saySkipped()
    return this.#digest.digest()
  }

  /** Past the whole blocks of a hole, one of which at most is left to look at. */
  #skipHole(offset: number): number {
    const { isHole, endOffset } = this.#extents.at(offset, this.#lengthBytes)
    const blocks = isHole ? Math.ceil((endOffset - offset) / BLOCK_BYTES) - 1 : 0
    if (blocks <= 0) return offset
    this.#sayKept()
    this.#skipping += blocks * BLOCK_BYTES
    this.#digest.updateZeros(blocks * BLOCK_BYTES)
    return offset + blocks * BLOCK_BYTES
  }

  #keep(): void {
    this.#saySkipped()
    this.#keeping += 1
    this.keptBytes += BLOCK_BYTES
  }

  async #sendBlock(start: number, { bytes, parts }: Block): Promise<void> {
    this.#sayKept()
    for (const { isHole, offset, endOffset } of parts) {
      if (isHole) {
        this.#skipping += endOffset - offset
        continue
      }
      this.#saySkipped()
      await this.#outlet.wire.sendContent(bytes.subarray(offset - start, endOffset - start))
      this.sentBytes += endOffset - offset
    }
  }

  #sayKept(): void {
    if (this.#keeping > 0) this.#outlet.wire.send("KEEP", { blocks: this.#keeping })
    this.#keeping = 0
  }

  #saySkipped(): void {
    if (this.#skipping > 0) this.#outlet.wire.send("HOLE", { lengthBytes: this.#skipping })
    this.#skipping = 0
  }
}

function hasChanged(before: FileStatus, after: FileStatus): boolean {
  return (
    before.lengthBytes !== after.lengthBytes ||
    !sameTime(before.modified, after.modified) ||
    !sameTime(before.changed, after.changed)
  )
}
