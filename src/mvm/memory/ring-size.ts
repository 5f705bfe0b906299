/** @module mvm/memory/ring-size */

import { regionBytes } from "../../ring/layout.ts"

/** No ring is made smaller than this for want of room. */
const LEAST_RING_BYTES = 64 * 1024

/** A new region leaves room for so many of its size. */
const SPARE_REGIONS = 16

/**
 * The ring of a new channel: they shrink as memory fills, so that the first channels are fast and the last ones still
 * find room.
 */
export function ringThatFits(wantedBytes: number, freeBytes: number): number {
  let ringBytes = wantedBytes
  while (ringBytes > LEAST_RING_BYTES && regionBytes(ringBytes) * SPARE_REGIONS > freeBytes) ringBytes /= 2
  return ringBytes
}
