/**
 * @module mvm/memory/channel-memory
 *
 * Where a channel's region lies: in the arena, which every VM maps, or in a file of its own that only the two ends
 * reach. What a channel needs of either is the same.
 */

import { regionBytes, regionLayout } from "../../ring/layout.ts"
import type { Isolation } from "../../channel/decision.ts"
import type { Place } from "../../tcb/grant.ts"
import type { Arena, ArenaRegion } from "../channels/arena.ts"

export interface ChannelMemory {
  readonly isolation: Isolation
  /** Of each of its two rings */
  readonly ringBytes: number
  /** The region's */
  readonly lengthBytes: number
  /** What is taken for it of all memory of its kind */
  readonly costBytes: number
  /** What the next life of the MVM finds it by */
  readonly stored: StoredMemory
  /** Where the member finds it, for the grant that is sealed to it. */
  place(uuid: string): Place
  /** Both ends proved themselves: resolves when each has it. @throws MvmError `qemu`, `busy`. */
  attach(): Promise<void>
  /** The first bytes of the region as they are now. Trust: whoever maps it wrote them. @throws MvmError `io`. */
  peek(lengthBytes: number): Uint8Array
  /** Neither end may use it any more. Who does not let go of it soon has it taken away, where that can be done. */
  revoke(): void
  /** The channel is over, or one end is done with it: as {@link revoke}, with more time, and nobody's fault. */
  expire(): void
  /** No end can touch it any more, or none ever could. */
  free(): void
}

/** What a channel's file says of its memory. */
export type StoredMemory =
  | { readonly kind: "arena"; readonly offset: number; readonly ringBytes: number }
  | { readonly kind: "file"; readonly path: string; readonly tag: string; readonly ringBytes: number }
  | { readonly kind: "holding"; readonly id: string }

const NO_TAG = new Uint8Array(0)

/** A region of the arena. */
export class ArenaMemory implements ChannelMemory {
  readonly isolation = "arena"
  readonly ringBytes: number
  readonly lengthBytes: number
  readonly region: ArenaRegion
  readonly #arena: Arena

  private constructor(arena: Arena, region: ArenaRegion, ringBytes: number) {
    this.#arena = arena
    this.region = region
    this.ringBytes = ringBytes
    this.lengthBytes = region.lengthBytes
  }

  /** A fresh region of two rings. @throws MvmError as {@link Arena.allocate}. */
  static allocate(arena: Arena, ringBytes: number): ArenaMemory {
    const { lengthBytes, header } = regionLayout(ringBytes)
    const region = arena.allocate(lengthBytes)
    try {
      arena.write(region, 0, header)
    } catch (error) {
      arena.free(region)
      throw error
    }
    return new ArenaMemory(arena, region, ringBytes)
  }

  /** One that was in use before the MVM was restarted. @throws MvmError `state` when it is not free. */
  static reserve(arena: Arena, offset: number, ringBytes: number): ArenaMemory {
    const region = { offset, lengthBytes: regionBytes(ringBytes) }
    arena.reserve(region)
    return new ArenaMemory(arena, region, ringBytes)
  }

  get costBytes(): number {
    return this.lengthBytes
  }

  get stored(): StoredMemory {
    return { kind: "arena", offset: this.region.offset, ringBytes: this.ringBytes }
  }

  place(): Place {
    return { tag: NO_TAG, path: "", offset: this.region.offset }
  }

  async attach(): Promise<void> {}

  peek(lengthBytes: number): Uint8Array {
    return this.#arena.read(this.region, 0, lengthBytes)
  }

  /** Every VM maps the arena as long as it runs. */
  revoke(): void {}

  expire(): void {}

  free(): void {
    this.#arena.free(this.region)
  }
}
