/**
 * @module ring/layout
 *
 * Where things lie in a channel's memory region.
 *
 *     offset       size       contents
 *     0x0000       4096       header page: one 128-byte block for each word, so that no two writers share
 *                             a cache line (nor the neighbour a prefetcher fetches along)
 *       0x000                   layout version         written once by the MVM
 *       0x010                   tag                    the same; zero in the arena
 *       0x080                   revoked mark           written by the MVM
 *       0x100 + r * 0x280       ring r:  + 0x000  tail           written by the producer
 *                                        + 0x080  head           written by the consumer
 *                                        + 0x100  data wanted    set by the consumer, taken by the producer
 *                                        + 0x180  room wanted    set by the producer, taken by the consumer
 *                                        + 0x200  closed mark    set by the producer
 *     0x1000       ringBytes  ring 0, from A (who asked) to B (who answers)
 *     0x1000 + n   ringBytes  ring 1, from B to A
 *
 *     a ring, in units of 64 bytes:
 *
 *          head                     tail
 *           v                        v
 *     | ... [record......][rec][rec..] free ...        ... [padding]|
 *           <-- committed ---------->  <-- the producer may claim -->
 *
 * Cursors count units and wrap at 2^32; a ring holds a power of two of units, so `cursor mod capacity` is its
 * index. A record is contiguous: one that does not fit before the end of the ring is preceded by padding.
 *
 *     record, little-endian:   0  u32  payload length in bytes
 *                              4  u32  kind word (the record layer's; PADDING belongs to the ring)
 *                              8       not read
 *                             16  16 B authentication tag
 *                             32       not read
 *                             64       payload, up to a multiple of 64
 *
 * Trust: the geometry comes from DECISION, never from the memory. Of the memory each end reads the other's cursor,
 * two record words and payload, each once, and checks them before use. The marks and wanted words are hints.
 */

import { MvmError } from "../lib/errors.ts"

// Specification.

export const LAYOUT_VERSION = 1
export const HEADER_PAGE_BYTES = 4096
export const UNIT_BYTES = 64
export const RECORD_HEADER_BYTES = UNIT_BYTES
export const TAG_OFFSET_BYTES = 16
/** The kind word of a padding record; its length reaches exactly to the end of the ring. */
export const PADDING = 0xffff_ffff
export const MIN_RING_BYTES = 4096
export const MAX_RING_BYTES = 2 ** 30
/** The fastest here; 2 MiB costs a tenth, 1 MiB a quarter. */
export const DEFAULT_RING_BYTES = 2 ** 22

const BLOCK_WORDS = 32
const VERSION_WORD = 0
const TAG_OFFSET = 16
const REGION_TAG_BYTES = 16
const REVOKED_WORD = BLOCK_WORDS
const RING_FIRST_WORD = 2 * BLOCK_WORDS
const RING_STRIDE_WORDS = 5 * BLOCK_WORDS

/** One direction of a region, as its producer and consumer see it. */
export interface RingMemory {
  /** The header page as words. */
  readonly control: Int32Array
  readonly tailWord: number
  readonly headWord: number
  readonly dataWantedWord: number
  readonly roomWantedWord: number
  readonly closedWord: number
  readonly bytes: Uint8Array
  /** The same memory as `bytes`. */
  readonly words: Int32Array
  readonly capacityUnits: number
}

/** A channel's whole region: two rings and the marks. */
export interface Region {
  readonly aToB: RingMemory
  readonly bToA: RingMemory
  readonly control: Int32Array
}

export function isRingBytes(ringBytes: number): boolean {
  return (
    Number.isSafeInteger(ringBytes) &&
    ringBytes >= MIN_RING_BYTES &&
    ringBytes <= MAX_RING_BYTES &&
    Math.log2(ringBytes) % 1 === 0
  )
}

/** The memory a channel with two rings of `ringBytes` takes. */
export function regionBytes(ringBytes: number): number {
  return HEADER_PAGE_BYTES + 2 * ringBytes
}

/** The longest payload a record in a ring can have: with its header, half the ring, so that padding always fits. */
export function longestPayloadBytes(ringBytes: number): number {
  return ringBytes / 2 - RECORD_HEADER_BYTES
}

/** The greatest ring two of which fit `availableBytes` beside the header page, or 0. */
export function greatestRingBytes(availableBytes: number): number {
  let ringBytes = MAX_RING_BYTES
  while (ringBytes >= MIN_RING_BYTES && regionBytes(ringBytes) > availableBytes) ringBytes /= 2
  return ringBytes < MIN_RING_BYTES ? 0 : ringBytes
}

/**
 * Views of `memory` as a region of two rings of `ringBytes` each. The memory may be longer than the region.
 *
 * @throws MvmError `usage` for a ring size that is no power of two from 4 KiB to 1 GiB or does not fit.
 */
export function regionOf(memory: Uint8Array, ringBytes: number): Region {
  demandRingBytes(ringBytes)
  if (regionBytes(ringBytes) > memory.length) {
    throw new MvmError("usage", `ring size ${ringBytes}: the region holds ${memory.length} bytes`, {
      hint: `the greatest ring that fits is ${greatestRingBytes(memory.length)} bytes`,
    })
  }
  const control = new Int32Array(memory.buffer, memory.byteOffset, HEADER_PAGE_BYTES / 4)
  const ring = (index: 0 | 1): RingMemory => {
    const first = RING_FIRST_WORD + index * RING_STRIDE_WORDS
    const at = memory.byteOffset + HEADER_PAGE_BYTES + index * ringBytes
    return {
      control,
      tailWord: first,
      headWord: first + BLOCK_WORDS,
      dataWantedWord: first + 2 * BLOCK_WORDS,
      roomWantedWord: first + 3 * BLOCK_WORDS,
      closedWord: first + 4 * BLOCK_WORDS,
      bytes: new Uint8Array(memory.buffer, at, ringBytes),
      words: new Int32Array(memory.buffer, at, ringBytes / 4),
      capacityUnits: ringBytes / UNIT_BYTES,
    }
  }
  return { aToB: ring(0), bToA: ring(1), control }
}

/**
 * What the MVM makes of zeroed memory to turn it into a region: `lengthBytes` long, with `header` at its start.
 *
 * @param tag 16 bytes by which the ends know the memory, where each finds it by itself
 * @throws MvmError `usage` for a ring size that is no power of two from 4 KiB to 1 GiB.
 */
export function regionLayout(
  ringBytes: number,
  tag?: Uint8Array,
): { lengthBytes: number; header: Uint8Array } {
  demandRingBytes(ringBytes)
  const header = new Uint8Array(HEADER_PAGE_BYTES)
  new Int32Array(header.buffer)[VERSION_WORD] = LAYOUT_VERSION
  if (tag) header.set(tag, TAG_OFFSET)
  return { lengthBytes: regionBytes(ringBytes), header }
}

/**
 * The tag of the region that begins with `page`, copied. Trust: a hint at which memory this is; whoever maps it may
 * have written it.
 */
export function tagOf(page: Uint8Array): Uint8Array {
  return page.slice(TAG_OFFSET, TAG_OFFSET + REGION_TAG_BYTES)
}

/** @throws MvmError `protocol` when the MVM that made the region lays it out otherwise. */
export function checkLayoutVersion(region: Region): void {
  const version = Atomics.load(region.control, VERSION_WORD)
  if (version !== LAYOUT_VERSION) {
    throw new MvmError("protocol", `ring.version: layout ${version >>> 0}, this end knows ${LAYOUT_VERSION}`)
  }
}

/** What a ring's two ends say of how far they are: units, modulo 2^32. */
export interface Cursors {
  readonly tail: number
  readonly head: number
}

/** So much of a header page holds all cursors. */
export const CURSORS_BYTES = 4 * (RING_FIRST_WORD + 2 * RING_STRIDE_WORDS)

/**
 * The cursors of ring 0 and ring 1 in the first {@link CURSORS_BYTES} bytes of a header page.
 *
 * Trust: anybody who maps the region may have written anything there.
 */
export function cursorsIn(header: Uint8Array): [Cursors, Cursors] {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength)
  const ring = (index: 0 | 1): Cursors => {
    const first = 4 * (RING_FIRST_WORD + index * RING_STRIDE_WORDS)
    return { tail: view.getUint32(first, true), head: view.getUint32(first + 4 * BLOCK_WORDS, true) }
  }
  return [ring(0), ring(1)]
}

/** A hint to both ends that the MVM revoked the channel; what decides is the lease and REVOKE. */
export function markRevoked(region: Region): void {
  Atomics.store(region.control, REVOKED_WORD, 1)
}

export function isMarkedRevoked(region: Region): boolean {
  return Atomics.load(region.control, REVOKED_WORD) !== 0
}

/** A hint that this ring's producer has gone; what decides is the EOF record and ABORT. */
export function markClosed(ring: RingMemory): void {
  Atomics.store(ring.control, ring.closedWord, 1)
}

export function isMarkedClosed(ring: RingMemory): boolean {
  return Atomics.load(ring.control, ring.closedWord) !== 0
}

/** Units a record with this payload takes. */
export function recordUnits(payloadBytes: number): number {
  return 1 + Math.ceil(payloadBytes / UNIT_BYTES)
}

function demandRingBytes(ringBytes: number): void {
  if (isRingBytes(ringBytes)) return
  throw new MvmError(
    "usage",
    `ring size ${ringBytes}: not a power of two from ${MIN_RING_BYTES} to ${MAX_RING_BYTES}`,
  )
}
