/** @module test/guest/copy/blocks */

import { afterAll, describe, expect, test } from "bun:test"
import { closeSync, openSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import {
  BLOCK_BYTES,
  ContentDigest,
  Extents,
  blockDigest,
  readBlock,
} from "../../../src/guest/copy/blocks.ts"
import { Scratch, holes, noise } from "./trees.ts"

const scratch = new Scratch()
afterAll(() => scratch.remove())

const LENGTHS = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 3 * BLOCK_BYTES + 5]

function digestOf(bytes: Uint8Array, pieces: number): string {
  const digest = new ContentDigest()
  for (let at = 0; at < bytes.length; at += pieces) digest.update(bytes.subarray(at, at + pieces))
  return digest.digest().toHex()
}

describe("the digest of a content", () => {
  test.each(LENGTHS)("of %d bytes is the same however they come", (length) => {
    const bytes = noise(length)
    const whole = digestOf(bytes, length + 1)
    for (const pieces of [777_777, BLOCK_BYTES, 4096]) expect(digestOf(bytes, pieces)).toBe(whole)
    const other = bytes.slice()
    if (length > 0) {
      other[length - 1] = (other[length - 1] ?? 0) ^ 1
      expect(digestOf(other, 4096)).not.toBe(whole)
    }
    expect(digestOf(Buffer.concat([bytes, Buffer.of(0)]), 4096)).not.toBe(whole)
  })

  test.each(LENGTHS)("is the same for %d zeros that are read and for a hole", (length) => {
    const before = noise(BLOCK_BYTES / 2)
    const hole = new ContentDigest()
    hole.update(before)
    hole.updateZeros(length)
    hole.update(before)
    expect(digestOf(Buffer.concat([before, new Uint8Array(length), before]), 100_000)).toBe(
      hole.digest().toHex(),
    )
  })

  test("of 2^53 zeros takes no time", () => {
    const digest = new ContentDigest()
    digest.updateZeros(2 ** 53 - 1)
    expect(digest.digest().length).toBe(32)
  })
})

describe("a block", () => {
  test("of a sparse file is what a read of it gives, and its parts cover it", async () => {
    const path = join(scratch.path, "sparse")
    holes(path, 6 * BLOCK_BYTES + 100)
    const bytes = new Uint8Array(await Bun.file(path).arrayBuffer())
    const fd = openSync(path, "r")
    const extents = new Extents(fd, bytes.length, false)
    const buffer = new Uint8Array(BLOCK_BYTES)
    const digest = new ContentDigest()
    // Backwards too: what was found last is only a memory.
    for (const order of [1, -1]) {
      for (let index = 0; index < 7; index += 1) {
        const offset = (order > 0 ? index : 6 - index) * BLOCK_BYTES
        const endOffset = Math.min(offset + BLOCK_BYTES, bytes.length)
        const block = readBlock(fd, extents, { offset, endOffset }, buffer)
        expect(block.parts[0]?.offset).toBe(offset)
        expect(block.parts.at(-1)?.endOffset).toBe(endOffset)
        const fresh = new ContentDigest()
        fresh.updateBlock(blockDigest(block), endOffset - offset)
        expect(fresh.digest().toHex()).toBe(digestOf(bytes.subarray(offset, endOffset), BLOCK_BYTES))
        if (order > 0) digest.updateBlock(blockDigest(block), endOffset - offset)
      }
    }
    closeSync(fd)
    expect(digest.digest().toHex()).toBe(digestOf(bytes, 4096))
  })

  test("is shorter where the file ended meanwhile", () => {
    const path = join(scratch.path, "shrinks")
    writeFileSync(path, noise(BLOCK_BYTES))
    const fd = openSync(path, "r")
    truncateSync(path, 1000)
    const block = readBlock(
      fd,
      new Extents(fd, BLOCK_BYTES, true),
      { offset: 0, endOffset: BLOCK_BYTES },
      new Uint8Array(BLOCK_BYTES),
    )
    closeSync(fd)
    expect(block.bytes.length).toBe(1000)
  })
})
