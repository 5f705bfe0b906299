/** @module test/guest/copy/known-blocks */

import { afterAll, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { BLOCK_BYTES } from "../../../src/guest/copy/blocks.ts"
import { KnownBlocks } from "../../../src/guest/copy/known-blocks.ts"
import { Settling } from "../../../src/guest/copy/settling.ts"
import { TargetFolder } from "../../../src/guest/copy/target-folder.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { Folder } from "../../../src/platform/folder.ts"
import { Scratch } from "./trees.ts"

const FILES = 128
const scratch = new Scratch()
afterAll(() => scratch.remove())

test("many files at once are known in the memory of one block, each by its own content", () => {
  const path = scratch.folder("target")
  const contents = Array.from({ length: FILES }, (_, index) => new Uint8Array(BLOCK_BYTES).fill(index))
  contents.forEach((bytes, index) => writeFileSync(join(path, `${index}`), bytes))
  const target = TargetFolder.root(Folder.open(path), new Settling(() => {}))
  const before = process.memoryUsage.rss()
  const known = contents.map((_, index) => KnownBlocks.ofFile(target, Buffer.from(`${index}`), 1)!)
  const digests = known.map((file) => Buffer.from(file.next()).toString("hex"))
  expect(process.memoryUsage.rss() - before).toBeLessThan((FILES / 2) * BLOCK_BYTES)
  expect(digests).toEqual(contents.map((bytes) => Buffer.from(sha256(bytes)).toString("hex")))
  for (const file of known) file.close()
  target.abandonAll()
})
