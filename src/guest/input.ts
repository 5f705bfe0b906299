/**
 * @module guest/input
 *
 * What a sender reads: a regular file where it lies in the page cache if that is safe, and any other descriptor by
 * copying.
 */

import { readSync } from "node:fs"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { LeasedFile } from "../platform/leased-file.ts"

export interface Source {
  readonly fd: number
  /** A regular file is always readable; anything else is polled first. */
  readonly regular: boolean
}

export class Input {
  readonly #fd: number
  readonly #buffer: Uint8Array
  #leased: LeasedFile | undefined

  /** @param mostBytes the most that is ever taken at once */
  constructor({ fd, regular }: Source, mostBytes: number) {
    this.#fd = fd
    this.#buffer = new Uint8Array(mostBytes)
    this.#leased = regular ? LeasedFile.take(fd) : undefined
  }

  /**
   * The next bytes, at most `mostBytes`; empty at the end, undefined: not now. To be done with before the event loop
   * runs again.
   *
   * @throws MvmError `io`
   */
  take(mostBytes: number): Uint8Array | undefined {
    const mapped = this.#leased?.next(mostBytes)
    // A file may have grown since: reading tells whether it ends here.
    if (mapped && mapped.length > 0) return mapped
    this.close()
    const got = readSome(this.#fd, this.#buffer.subarray(0, mostBytes))
    return got < 0 ? undefined : this.#buffer.subarray(0, got)
  }

  close(): void {
    this.#leased?.release()
    this.#leased = undefined
  }
}

/** @returns bytes read, 0 at the end, -1 for "not now" @throws MvmError `io` */
export function readSome(fd: number, buffer: Uint8Array): number {
  try {
    return readSync(fd, buffer, 0, buffer.length, null)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === "EAGAIN" || errno === "EINTR") return -1
    if (errno === "EOF") return 0
    throw new MvmError("io", `cannot read the input: ${errno ?? (error as Error).message}`, { cause: error })
  }
}
