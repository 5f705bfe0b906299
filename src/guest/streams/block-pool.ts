/**
 * @module guest/streams/block-pool
 *
 * Buffers to read into, as long as the longest record, used again and again: fresh memory for each read costs more
 * than the read. Whoever is given what was read owns it, and may hand it back here when done.
 */

import { discardOutput } from "../../lib/crypto.ts"
import { BULK_PAYLOAD_BYTES } from "../../channel/ring-records.ts"

/** Shorter pieces are copied out of their block instead of taking it along. */
const SHORT_BYTES = 16 * 1024
/** Blocks kept for later. */
const MAX_FREE = 16

const free: Uint8Array<ArrayBuffer>[] = []
const blocks = new WeakSet<ArrayBufferLike>()

/** Fills a block by `fill`, which returns how many bytes it put at the start; 0 or less is returned as it is. */
export function readBlock(fill: (block: Uint8Array<ArrayBuffer>) => number): Uint8Array | number {
  const block = free.pop() ?? makeBlock()
  const filled = fill(block)
  if (filled > SHORT_BYTES) return block.subarray(0, filled)
  free.push(block)
  return filled > 0 ? block.slice(0, filled) : filled
}

/** `bytes`, which a reader gave, will not be looked at again: their memory can be used at once. */
export function recycle(bytes: Uint8Array): void {
  if (!blocks.has(bytes.buffer)) return discardOutput(bytes)
  if (free.length < MAX_FREE) free.push(new Uint8Array(bytes.buffer as ArrayBuffer))
}

function makeBlock(): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(BULK_PAYLOAD_BYTES)
  blocks.add(block.buffer)
  return block
}
