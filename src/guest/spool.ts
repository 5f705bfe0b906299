/**
 * @module guest/spool
 *
 * Where a receiver keeps what it may not release yet: a file without a name in the directory for temporary
 * files, of this user alone, bounded by that file system's room, gone with the process.
 */

import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { toHex } from "../lib/bytes.ts"
import { random } from "../lib/crypto.ts"
import { MvmError, errnoOf } from "../lib/errors.ts"

const READ_BYTES = 1 << 20

export class Spool {
  /** Written to at its end. */
  readonly fd: number
  readonly directory: string

  private constructor(fd: number, directory: string) {
    this.fd = fd
    this.directory = directory
  }

  /** @throws MvmError `io` when no file can be made in `directory` (default: TMPDIR, else /tmp). */
  static create(directory = tmpdir()): Spool {
    const path = join(directory, `.mvm-${toHex(random(16))}`)
    try {
      // "wx+": it must not exist, so no link of another user is followed.
      const fd = openSync(path, "wx+", 0o600)
      unlinkSync(path)
      return new Spool(fd, directory)
    } catch (cause) {
      throw new MvmError("io", `cannot hold the output back in ${directory}: ${errnoOf(cause) ?? "failed"}`, {
        cause,
        hint: "name a directory this user can write with TMPDIR",
      })
    }
  }

  /** Puts `bytes` behind what is held. @throws MvmError `no_space`, `io` */
  write(bytes: Uint8Array): void {
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(this.fd, bytes, at)
    } catch (error) {
      throw this.failed(errnoOf(error), error)
    }
  }

  /** What a failed write to {@link fd} means. */
  failed(errno: string | undefined, cause: unknown): MvmError {
    const isFull = errno === "ENOSPC" || errno === "EDQUOT" || errno === "EFBIG"
    return new MvmError(
      isFull ? "no_space" : "io",
      `cannot hold the output back in ${this.directory}: ${isFull ? "it is full" : (errno ?? "failed")}`,
      {
        cause,
        hint: isFull ? "name a larger directory with TMPDIR" : undefined,
      },
    )
  }

  /** Gives everything, from the first byte, to `write`. @returns the bytes given */
  async release(write: (bytes: Uint8Array) => Promise<void>): Promise<number> {
    const buffer = new Uint8Array(READ_BYTES)
    let at = 0
    for (;;) {
      const got = readSync(this.fd, buffer, 0, buffer.length, at)
      if (got === 0) return at
      await write(buffer.subarray(0, got))
      at += got
    }
  }

  close(): void {
    closeSync(this.fd)
  }
}
