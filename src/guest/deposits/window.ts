/**
 * @module guest/deposits/window
 *
 * How the records of a deposit pass between agent and MVM: through the region of shared memory, or in the messages
 * themselves.
 */

import { mapShared, type Mapping } from "../../platform/mmap.ts"
import { DEPOSIT_PART_BYTES } from "../../wire/fields.ts"
import type { Region } from "../../wire/local-messages.ts"

export class Window {
  readonly #mapping: Mapping | undefined

  /** @param region undefined: over the link @throws MvmError `io` when it cannot be mapped */
  constructor(region: Region | undefined) {
    if (region) {
      const { path, offset, lengthBytes } = region
      this.#mapping = mapShared(path, { offsetBytes: offset, lengthBytes })
    }
  }

  /** The longest part that passes at once. */
  get partBytes(): number {
    return this.#mapping?.bytes.length ?? DEPOSIT_PART_BYTES
  }

  /** Puts a part where the other end finds it. @returns what the message carries of it */
  put(bytes: Uint8Array): { lengthBytes: number; part?: Uint8Array } {
    if (!this.#mapping) return { lengthBytes: bytes.length, part: bytes }
    this.#mapping.bytes.set(bytes)
    return { lengthBytes: bytes.length }
  }

  /** A private copy of the part that a message carries or names. Trust: any bytes, any length. */
  take({ lengthBytes, part }: { lengthBytes: number; part?: Uint8Array | undefined }): Uint8Array {
    if (!this.#mapping || part) return part ?? new Uint8Array(0)
    return this.#mapping.bytes.slice(0, Math.min(lengthBytes, this.#mapping.bytes.length))
  }

  close(): void {
    this.#mapping?.unmap()
  }
}
