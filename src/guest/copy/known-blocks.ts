/**
 * @module guest/copy/known-blocks
 *
 * What a receiver has of a file already: the blocks of a partial, or of the file that will be replaced. Their digests
 * go to the sender, and what it says is the same is kept.
 */

import { closeSync, constants } from "node:fs"
import { SHA256_BYTES } from "../../lib/crypto.ts"
import { statusOf } from "../../platform/folder.ts"
import { BLOCK_BYTES, Extents, blockDigest, readBlock, type Block } from "./blocks.ts"
import { partialNameOf } from "./names.ts"
import { Partial } from "./partial.ts"
import type { TargetFolder } from "./target-folder.ts"

/** Every use of what is read ends before the next one: files that wait by the hundred share it. */
const buffer = new Uint8Array(BLOCK_BYTES)

export class KnownBlocks {
  readonly count: number
  /** The file that is filled, if it is what is known: what is kept stays where it is. */
  readonly partial: Partial | undefined
  readonly #fd: number
  readonly #digests: Uint8Array[] = []
  readonly #extents: Extents
  #isOpen = true

  private constructor(fd: number, count: number, partial?: Partial) {
    this.#fd = fd
    this.count = count
    this.partial = partial
    this.#extents = new Extents(fd, count * BLOCK_BYTES, false)
  }

  /**
   * What a broken copy left of `name`, if that is a block at least. @param most blocks that are of use
   *
   * @throws MvmError `busy`, and the system's errors
   */
  static ofPartial({ folder, owner }: TargetFolder, name: Uint8Array, most: number): KnownBlocks | undefined {
    const left = folder.status(partialNameOf(name, owner))
    if (most === 0 || left === undefined || left.lengthBytes < BLOCK_BYTES) return undefined
    const partial = Partial.open(folder, name, owner)
    const count = Math.min(most, partial.keptBlocks)
    if (count > 0) return new KnownBlocks(partial.fd, count, partial)
    partial.leave()
    return undefined
  }

  /** The file that has the name now, if it is one and can be read. */
  static ofFile({ folder }: TargetFolder, name: Uint8Array, most: number): KnownBlocks | undefined {
    const now = folder.status(name)
    if (most === 0 || now?.kind !== "file" || now.lengthBytes < BLOCK_BYTES) return undefined
    let fd: number
    try {
      fd = folder.openFile(name, constants.O_RDONLY)
    } catch {
      return undefined
    }
    const { kind, lengthBytes } = statusOf(fd)
    const count = Math.min(most, Math.floor(lengthBytes / BLOCK_BYTES))
    if (kind === "file" && count > 0) return new KnownBlocks(fd, count)
    closeSync(fd)
    return undefined
  }

  /** As {@link next} worked it out, undefined before that. */
  digestAt(block: number): Uint8Array | undefined {
    return this.#digests[block]
  }

  /** The digest of the next block; zeros once the file is given up, since the sender still waits for its number. */
  next(): Uint8Array {
    const digest = this.#isOpen ? blockDigest(this.#read(this.#digests.length)) : new Uint8Array(SHA256_BYTES)
    this.#digests.push(digest)
    return digest
  }

  /**
   * Keeps a block whose digest was worked out: copies it where the file that is filled is another one.
   *
   * @returns the digest of what is there now
   */
  keep(block: number, into: Partial): Uint8Array | undefined {
    if (into === this.partial) return this.#digests[block]
    const found = this.#read(block)
    const start = block * BLOCK_BYTES
    for (const { isHole, offset, endOffset } of found.parts) {
      if (!isHole) into.write(found.bytes.subarray(offset - start, endOffset - start), offset)
    }
    return blockDigest(found)
  }

  /** Nothing is kept from now on. The partial is its own affair. */
  close(): void {
    if (this.#isOpen && !this.partial) closeSync(this.#fd)
    this.#isOpen = false
  }

  #read(block: number): Block {
    const offset = block * BLOCK_BYTES
    return readBlock(this.#fd, this.#extents, { offset, endOffset: offset + BLOCK_BYTES }, buffer)
  }
}
