/**
 * @module guest/vm-memory
 *
 * The shared memory of a VM: the arena, which is there when the VM starts, and devices that are plugged in for
 * channels of their own, known by the tag that the MVM writes into their first page.
 *
 * Trust: a tag is a hint at the right device. Who could write it elsewhere is the other end alone, to whom it was
 * sealed, and who would find its own channel broken.
 */

import { equalBytes } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import type { SharedMemoryDevice } from "../platform/ivshmem.ts"
import {
  fastest,
  isAbove4GiB,
  mappingOf,
  probeMappings,
  type MappingProbe,
  type Way,
} from "../platform/mapping.ts"
import { mapShared } from "../platform/mmap.ts"
import { HEADER_PAGE_BYTES, tagOf } from "../ring/layout.ts"
import { ArenaDevice } from "./arena-device.ts"
import type { GuestMemory, Memory, MemoryPlace, MemoryProbe } from "./guest-memory.ts"

/** Memories whose place is remembered. */
const MAX_SEEN = 64

/** From QEMU's word that a device is there until the kernel has found it. */
const APPEAR_MS = 10_000
const LOOK_MS = 10

export class VmMemory implements GuestMemory {
  readonly #wanted: Way | undefined
  readonly #arena: ArenaDevice
  /** For devices above 4 GiB, and below */
  readonly #chosen = new Map<boolean, { way: Way | undefined; probes: readonly MappingProbe[] }>()
  /** Where the device with a tag was last seen */
  readonly #seen = new Map<string, string>()

  /** @param wanted the one way to use, else the fastest */
  constructor(wanted?: Way, arena = new ArenaDevice()) {
    this.#wanted = wanted
    this.#arena = arena
  }

  arena(): Memory {
    const device = this.#arena.find()
    if (!device) return { why: "this machine has no shared memory device" }
    const place = this.#place(device)
    if (place) return place
    // Where the kernel is locked down a file opens, and does not map.
    const problem = this.probes().find(({ way }) => way === (this.#wanted ?? way))?.problem
    return { why: problem ?? "no way to map it works" }
  }

  async dedicated({ tag, lengthBytes }: { tag: Uint8Array; lengthBytes: number }): Promise<MemoryPlace> {
    const arena = this.arena()
    if ("why" in arena) throw new MvmError("setup", `shared memory cannot be mapped: ${arena.why}`)
    const deadline = performance.now() + APPEAR_MS
    for (;;) {
      const place = this.#look(tag, lengthBytes)
      if (place) return place
      if (performance.now() > deadline) {
        throw new MvmError("unreachable", "the memory of the channel did not appear on the PCI bus", {
          hint: "does this kernel have PCI hot-plug?",
        })
      }
      await Bun.sleep(LOOK_MS)
    }
  }

  probes(): MemoryProbe[] {
    return [...this.#chosen.values()].flatMap(({ way, probes }) =>
      probes.map((probe) => ({ ...probe, isChosen: probe.way === way })),
    )
  }

  #look(tag: Uint8Array, lengthBytes: number): MemoryPlace | undefined {
    const key = tag.toHex()
    const seen = this.#seen.get(key)
    const devices = this.#arena
      .plugged()
      .sort((a, b) => Number(b.address === seen) - Number(a.address === seen))
    for (const device of devices) {
      if (device.lengthBytes < lengthBytes) continue
      const place = this.#place(device)
      if (!place || !isTagged(place, tag)) continue
      if (this.#seen.size >= MAX_SEEN) this.#seen.clear()
      this.#seen.set(key, device.address)
      return place
    }
    this.#seen.delete(key)
    return undefined
  }

  #place(device: SharedMemoryDevice): MemoryPlace | undefined {
    const way = this.#wayFor(device)
    if (!way) return undefined
    const { path, offsetBytes } = mappingOf(device, way)
    const name = way === "devmem" ? "/dev/mem" : way
    return { path, offsetBytes, lengthBytes: device.lengthBytes, how: `${name} of ${device.address}` }
  }

  #wayFor(device: SharedMemoryDevice): Way | undefined {
    const where = isAbove4GiB(device)
    let chosen = this.#chosen.get(where)
    if (!chosen?.way) {
      const probes = probeMappings(device)
      const usable = probes.filter(({ way }) => this.#wanted === undefined || way === this.#wanted)
      chosen = { way: fastest(usable), probes }
      this.#chosen.set(where, chosen)
    }
    return chosen.way
  }
}

function isTagged({ path, offsetBytes }: MemoryPlace, tag: Uint8Array): boolean {
  try {
    const page = mapShared(path, { offsetBytes, lengthBytes: HEADER_PAGE_BYTES })
    try {
      return equalBytes(tagOf(page.bytes), tag)
    } finally {
      page.unmap()
    }
  } catch {
    // It is just coming or going.
    return false
  }
}
