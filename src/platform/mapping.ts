/**
 * @module platform/mapping
 *
 * The ways in which a guest can map the memory of a device, and how fast each is. On Intel, KVM makes all of them
 * write-back; on AMD the guest's own cache type counts, and uncached is ten to a hundred times slower.
 *
 *     resource2       sysfs; uncached
 *     resource2_wc    sysfs; write-combining
 *     devmem          /dev/mem without O_SYNC; write-back where the device lies above 4 GiB, uncached below
 *
 * The kernel keeps one cache type for a range: while one mapping lives, another type is refused. So a way is given up
 * before the next is tried, and all processes of a VM use the one that was chosen.
 */

import { asMvmError } from "../lib/errors.ts"
import { SCRATCH_BYTES, type SharedMemoryDevice } from "./ivshmem.ts"
import { mapShared, type Mapping } from "./mmap.ts"

/** Where two are about as fast, the first is taken. */
export const WAYS = ["resource2", "resource2_wc", "devmem"] as const
export type Way = (typeof WAYS)[number]

/** A later way is taken only if it is so much faster. */
const MARGIN = 1.5

/** For reading, and for writing. */
const MEASURE_MS = 2
/** One of them is not interrupted. */
const LEAST_PASSES = 8

const FOUR_GIB = 2 ** 32

/** What one way to map a device was found to be. */
export interface MappingProbe {
  /** PCI address */
  readonly device: string
  readonly way: Way
  /** 10^6 bytes a second; null where it cannot be mapped so */
  readonly readMbS: number | null
  readonly writeMbS: number | null
  /** What memory of this machine's own gave in that moment: an emulated or busy processor makes all of it slow */
  readonly ordinaryMbS: number | null
  /** Why it cannot be */
  readonly problem: string | null
}

/** The file and the offset in it by which a device is mapped in one way. */
export function mappingOf(device: SharedMemoryDevice, way: Way): { path: string; offsetBytes: number } {
  if (way === "devmem") return { path: "/dev/mem", offsetBytes: device.baseAddress }
  return { path: `${device.folder}/${way}`, offsetBytes: 0 }
}

/** Whether the device lies where the kernel's default is write-back. */
export function isAbove4GiB(device: SharedMemoryDevice): boolean {
  return device.baseAddress >= FOUR_GIB
}

/** The cache type that the guest's kernel asks for. @spec Linux Documentation/arch/x86/pat.rst */
export function usualCache(device: SharedMemoryDevice, way: Way): string {
  if (way === "resource2_wc") return "write-combining"
  return way === "devmem" && isAbove4GiB(device) ? "write-back" : "uncached"
}

/** The kernel's own list of the cache types it keeps; root may read it where debugfs is mounted. */
export const CACHE_TYPES = "/sys/kernel/debug/x86/pat_memtype_list"

/** What that list says of a device's memory; undefined while nobody maps it. */
export function cacheIn(list: string, { baseAddress, lengthBytes }: SharedMemoryDevice): string | undefined {
  for (const [, first, end, type] of list.matchAll(/\[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] (\S+)/g)) {
    const start = Number.parseInt(first ?? "", 16)
    if (start >= baseAddress && Number.parseInt(end ?? "", 16) <= baseAddress + lengthBytes) return type
  }
  return undefined
}

/** Tries every way, and writes over the scratch part of the device. Takes 0.1 s at most. */
export function probeMappings(device: SharedMemoryDevice): MappingProbe[] {
  return WAYS.map((way) => probe(device, way))
}

/** The way to take, or undefined where none works. */
export function fastest(probes: readonly MappingProbe[]): Way | undefined {
  let best: { way: Way; cost: number } | undefined
  for (const { way, readMbS, writeMbS } of probes) {
    if (readMbS === null || writeMbS === null) continue
    const cost = 1 / readMbS + 1 / writeMbS
    if (!best || cost * MARGIN < best.cost) best = { way, cost }
  }
  return best?.way
}

function probe(device: SharedMemoryDevice, way: Way): MappingProbe {
  const found = {
    device: device.address,
    way,
    readMbS: null,
    writeMbS: null,
    ordinaryMbS: null,
    problem: null,
  }
  const { path, offsetBytes } = mappingOf(device, way)
  let mapping: Mapping
  try {
    const scratch = offsetBytes + device.lengthBytes - SCRATCH_BYTES
    mapping = mapShared(path, { offsetBytes: scratch, lengthBytes: SCRATCH_BYTES })
  } catch (error) {
    return { ...found, problem: asMvmError(error).message }
  }
  try {
    const { bytes } = mapping
    const [own, other] = [new Uint8Array(SCRATCH_BYTES), new Uint8Array(SCRATCH_BYTES)]
    const writeMbS = rate(() => bytes.set(own))
    const readMbS = rate(() => own.set(bytes))
    const ordinaryMbS = rate(() => own.set(other))
    return { ...found, readMbS, writeMbS, ordinaryMbS }
  } finally {
    mapping.unmap()
  }
}

/** Of the best pass: others shared the processor, or were the first to run this code. */
function rate(pass: () => void): number {
  const startMs = performance.now()
  let bestMs = Infinity
  for (let now = startMs, passes = 0; now - startMs < MEASURE_MS || passes < LEAST_PASSES; passes += 1) {
    const beganMs = now
    pass()
    now = performance.now()
    bestMs = Math.min(bestMs, now - beganMs)
  }
  return Math.round(SCRATCH_BYTES / 1e3 / bestMs)
}
