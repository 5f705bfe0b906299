/** @module mvm/memory/ring-size */

import { SCRATCH_BYTES } from "../../platform/ivshmem.ts"
import { regionBytes } from "../../ring/layout.ts"

/** No ring is made smaller than this for want of room. */
const LEAST_RING_BYTES = 64 * 1024

/** The smallest device there is use for. */
const MIN_DEVICE_BYTES = 1 << 20

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

/** The greatest ring whose device is no greater than `maxBytes`, or the smallest there is. */
export function ringOfDevice(wantedBytes: number, maxBytes: number): number {
  let ringBytes = wantedBytes
  while (ringBytes > LEAST_RING_BYTES && deviceBytes(ringBytes) > maxBytes) ringBytes /= 2
  return ringBytes
}

/** A power of two that holds a region and, at its end, what probes write over. */
export function deviceBytes(ringBytes: number): number {
  let sizeBytes = MIN_DEVICE_BYTES
  while (sizeBytes < regionBytes(ringBytes) + SCRATCH_BYTES) sizeBytes *= 2
  return sizeBytes
}
