/**
 * @module guest/copy/blocks
 *
 * The content of a file as blocks of one size, each with its SHA-256. Two ends compare blocks to find what one has
 * already; the digest of the whole is the SHA-256 of its blocks' digests and its length, so that blocks that were
 * there are not read twice for it. Blocks of zeros that follow each other count as one number, so that a hole costs
 * nothing however long it is.
 */

import { readSync } from "node:fs"
import { equalBytes } from "../../lib/bytes.ts"
import { Sha256, sha256 } from "../../lib/crypto.ts"
import { nextData, nextHole } from "../../platform/folder.ts"

export const BLOCK_BYTES = 1 << 20

const ZEROS = new Uint8Array(BLOCK_BYTES)
let zeroDigest: Uint8Array | undefined

/** Gathers the content of a file from its first byte to its last. */
export class ContentDigest {
  readonly #whole = new Sha256()
  #block = new Sha256()
  #blockBytes = 0
  #zeroBlocks = 0
  #lengthBytes = 0

  update(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const take = Math.min(bytes.length - at, BLOCK_BYTES - this.#blockBytes)
      this.#block.update(bytes.subarray(at, at + take))
      at += take
      this.#blockBytes += take
      if (this.#blockBytes === BLOCK_BYTES) this.#endBlock()
    }
  }

  /** So many zeros. */
  updateZeros(lengthBytes: number): void {
    let left = lengthBytes
    const toBlock = Math.min(left, (BLOCK_BYTES - this.#blockBytes) % BLOCK_BYTES)
    this.update(ZEROS.subarray(0, toBlock))
    left -= toBlock
    const blocks = Math.floor(left / BLOCK_BYTES)
    this.#zeroBlocks += blocks
    this.#lengthBytes += blocks * BLOCK_BYTES
    this.update(ZEROS.subarray(0, left - blocks * BLOCK_BYTES))
  }

  /** A block whose digest is known; only where one begins. @param lengthBytes less than a block only at the end */
  updateBlock(digest: Uint8Array, lengthBytes: number): void {
    this.#lengthBytes += lengthBytes
    if (equalBytes(digest, zeroBlockDigest())) {
      this.#zeroBlocks += 1
      return
    }
    this.#endZeros()
    this.#whole.update(digest)
  }

  /** 32 bytes; the object is spent. */
  digest(): Uint8Array {
    if (this.#blockBytes > 0) this.#endBlock()
    this.#endZeros()
    return this.#whole.update(number(this.#lengthBytes)).digest()
  }

  #endBlock(): void {
    this.updateBlock(this.#block.digest(), this.#blockBytes)
    this.#block = new Sha256()
    this.#blockBytes = 0
  }

  #endZeros(): void {
    // The digest of a block of zeros is the sign: what follows it is their number.
    if (this.#zeroBlocks > 0) this.#whole.update(zeroBlockDigest()).update(number(this.#zeroBlocks))
    this.#zeroBlocks = 0
  }
}

/** A part of a file that is data, or a hole; it ends where the other kind begins or the question ended. */
export interface Extent {
  readonly isHole: boolean
  readonly offset: number
  readonly endOffset: number
}

/** What lies at which offset of an open file. */
export class Extents {
  readonly #fd: number
  readonly #lengthBytes: number
  /** What was found last: a hole from `#known` to `#data`, and data from there to `#end`. */
  #known = 0
  #data = 0
  #end = 0

  /** @param isDense without holes: nothing is looked up */
  constructor(fd: number, lengthBytes: number, isDense: boolean) {
    this.#fd = fd
    this.#lengthBytes = lengthBytes
    if (isDense) this.#end = lengthBytes
  }

  /** @param offset less than `endOffset`, which is at most the file's length */
  at(offset: number, endOffset: number): Extent {
    if (offset < this.#known || offset >= this.#end) this.#look(offset)
    const isHole = offset < this.#data
    return { isHole, offset, endOffset: Math.min(isHole ? this.#data : this.#end, endOffset) }
  }

  #look(offset: number): void {
    const data = nextData(this.#fd, offset) ?? this.#lengthBytes
    this.#known = offset
    this.#data = data
    // Past what was found, also where somebody punches holes meanwhile.
    this.#end = Math.max(data < this.#lengthBytes ? nextHole(this.#fd, data) : data, data + 1)
  }
}

/** A block as it is in an open file. */
export interface Block {
  /** A view of the buffer that was given; shorter where the file ended. Holes are zeros beside data. */
  readonly bytes: Uint8Array
  readonly parts: readonly Extent[]
}

/** Reads `[offset, endOffset)` into `buffer`. */
export function readBlock(
  fd: number,
  extents: Extents,
  { offset, endOffset }: { offset: number; endOffset: number },
  buffer: Uint8Array,
): Block {
  const bytes = buffer.subarray(0, endOffset - offset)
  const parts: Extent[] = []
  for (let at = offset; at < endOffset;) {
    const extent = extents.at(at, endOffset)
    const part = bytes.subarray(at - offset, extent.endOffset - offset)
    parts.push(extent)
    // Of a block that is one hole, nobody reads the bytes.
    if (extent.isHole && part.length < bytes.length) part.fill(0)
    const got = extent.isHole ? part.length : readFully(fd, part, at)
    if (got < part.length) return { bytes: bytes.subarray(0, at - offset + got), parts }
    at = extent.endOffset
  }
  return { bytes, parts }
}

/** 32 bytes. */
export function blockDigest({ bytes, parts }: Block): Uint8Array {
  if (parts.length > 1 || !parts[0]?.isHole) return sha256(bytes)
  return bytes.length === BLOCK_BYTES ? zeroBlockDigest() : sha256(ZEROS.subarray(0, bytes.length))
}

function zeroBlockDigest(): Uint8Array {
  zeroDigest ??= sha256(ZEROS)
  return zeroDigest
}

/** 8 bytes, big-endian. */
function number(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, BigInt(value))
  return new Uint8Array(view.buffer)
}

function readFully(fd: number, into: Uint8Array, offset: number): number {
  let at = 0
  while (at < into.length) {
    const got = readSync(fd, into, at, into.length - at, offset + at)
    if (got === 0) break
    at += got
  }
  return at
}
