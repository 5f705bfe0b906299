/**
 * @module guest/guest-memory
 *
 * Where a member finds the memory of its channels, and how it is for a local endpoint: files that the MVM names.
 */

import { statSync } from "node:fs"
import { MvmError } from "../lib/errors.ts"
import type { MappingProbe } from "../platform/mapping.ts"
import type { Grant } from "../tcb/grant.ts"
import type { Region } from "../wire/local-messages.ts"

export interface MemoryPlace {
  readonly path: string
  /** Of the memory in that file */
  readonly offsetBytes: number
  readonly lengthBytes: number
  /** For people: how it is mapped */
  readonly how: string
}

/** Memory that cannot be mapped here: records are relayed then. */
export interface NoMemory {
  /** For people */
  readonly why: string
}

export type Memory = MemoryPlace | NoMemory

export interface MemoryProbe extends MappingProbe {
  readonly isChosen: boolean
}

export interface GuestMemory {
  /** @param told the path the MVM named, for a local endpoint; undefined: it has not spoken yet */
  arena(told: string | undefined): Memory
  /** @throws MvmError `setup` where nothing can be mapped, `unreachable` when it does not appear. */
  dedicated(grant: Pick<Grant, "tag" | "path" | "lengthBytes">): Promise<MemoryPlace>
  /** Every way to map that was tried, with what it gave. */
  probes(): MemoryProbe[]
}

/** Of a local endpoint. */
export const localMemory: GuestMemory = {
  arena: (told) => {
    if (told === undefined) return { path: "", offsetBytes: 0, lengthBytes: 0, how: "the arena file" }
    if (told === "") return { why: "the MVM gives this endpoint none" }
    return file(told, "the arena file") ?? { why: `no file ${told}` }
  },
  dedicated: async ({ path }) => {
    const place = file(path, "a file of the channel")
    if (place) return place
    throw new MvmError("unreachable", "the memory of the channel is gone")
  },
  probes: () => [],
}

/** Where none is mapped. */
export function noMemory(why: string): GuestMemory {
  return {
    arena: () => ({ why }),
    dedicated: () => Promise.reject(new MvmError("setup", `no memory is mapped here: ${why}`)),
    probes: () => [],
  }
}

/**
 * The region of a grant, for the command that maps it.
 *
 * @throws MvmError `setup` where nothing can be mapped, `unreachable`, `protocol` when the region does not fit.
 */
export async function regionOfGrant(memory: GuestMemory, arena: Memory, grant: Grant): Promise<Region> {
  const place = grant.tag.length > 0 ? await memory.dedicated(grant) : arena
  if ("why" in place) throw new MvmError("setup", `this agent cannot map the shared memory: ${place.why}`)
  const { offset, lengthBytes, ringBytes } = grant
  if (offset + lengthBytes > place.lengthBytes) throw new MvmError("protocol", "grant: outside its memory")
  return { path: place.path, offset: place.offsetBytes + offset, lengthBytes, ringBytes }
}

function file(path: string, how: string): MemoryPlace | undefined {
  const lengthBytes = path === "" ? undefined : statSync(path, { throwIfNoEntry: false })?.size
  return lengthBytes ? { path, offsetBytes: 0, lengthBytes, how } : undefined
}
