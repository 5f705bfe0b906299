/**
 * @module guest/copy/limits
 *
 * What one copy may bring its receiver: so much content, so many entries, and so much room left free on the disk.
 */

import { MvmError } from "../../lib/errors.ts"
import { formatSize } from "../../lib/units.ts"

/** No file may be longer, also without a limit: 1 PiB. */
export const MAX_FILE_BYTES = 2 ** 50

/** How much may be written between two looks at the free space. */
const LOOK_BYTES = 16 * 2 ** 20

export interface Limits {
  /** Of the lengths of all files, those included that were there already. */
  readonly maxBytes: number
  /** Files, folders and links. */
  readonly maxFiles: number
  /** What must stay free. */
  readonly minFreeBytes: number
}

export const NO_LIMITS: Limits = { maxBytes: Infinity, maxFiles: Infinity, minFreeBytes: 0 }

export class LimitAccount {
  readonly #limits: Limits
  readonly #freeBytes: () => number
  #files = 0
  #bytes = 0
  #unlookedBytes = 0

  /** @param freeBytes what the target's file system has left now */
  constructor(limits: Limits, freeBytes: () => number) {
    this.#limits = limits
    this.#freeBytes = freeBytes
  }

  /** One more entry. @throws MvmError `refused` */
  addEntry(): void {
    this.#files += 1
    if (this.#files <= this.#limits.maxFiles) return
    throw new MvmError("refused", `the receiver takes at most ${this.#limits.maxFiles} files at a time`)
  }

  /** A file is announced, or grew. @throws MvmError `refused`, `no_space` */
  addLength(lengthBytes: number, allocatedBytes: number): void {
    this.#bytes += lengthBytes
    if (this.#bytes > this.#limits.maxBytes) {
      throw new MvmError(
        "refused",
        `the receiver takes at most ${formatSize(this.#limits.maxBytes)} at a time`,
      )
    }
    this.#require(Math.min(lengthBytes, allocatedBytes))
  }

  /** So much is about to be written. @throws MvmError `no_space` */
  addWritten(lengthBytes: number): void {
    this.#unlookedBytes += lengthBytes
    if (this.#unlookedBytes < LOOK_BYTES) return
    this.#unlookedBytes = 0
    this.#require(0)
  }

  #require(lengthBytes: number): void {
    const { minFreeBytes } = this.#limits
    // Looking costs a system call for each file: nothing is promised of a disk without a limit but its own ENOSPC.
    if (minFreeBytes === 0) return
    if (this.#freeBytes() - lengthBytes >= minFreeBytes) return
    throw new MvmError("no_space", `the receiver keeps ${formatSize(minFreeBytes)} of its disk free`)
  }
}
