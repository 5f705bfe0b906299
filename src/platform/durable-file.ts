/**
 * @module platform/durable-file
 *
 * Small private files that must be whole after a power cut: written beside their place, flushed, then renamed
 * over it. A reader sees the old content or the new, never a part.
 */

import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs"
import { dirname } from "node:path"
import { errnoOf, MvmError } from "../lib/errors.ts"

/**
 * Replaces `path` by `bytes`, mode 0600; it is on disk when this returns.
 *
 * @throws MvmError `no_space`, `io`.
 */
export function writeDurably(path: string, bytes: Uint8Array): void {
  const beside = `${path}.new`
  try {
    rmSync(beside, { force: true })
    const { O_WRONLY, O_CREAT, O_EXCL } = constants
    withFile(beside, O_WRONLY | O_CREAT | O_EXCL, (fd) => {
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at)
      fdatasyncSync(fd)
    })
    renameSync(beside, path)
    withFile(dirname(path), constants.O_RDONLY, fsyncSync)
  } catch (cause) {
    const errno = errnoOf(cause)
    const full = errno === "ENOSPC" || errno === "EDQUOT"
    throw new MvmError(full ? "no_space" : "io", `${path}: cannot be written (${errno ?? "unknown"})`, {
      cause,
      hint: full ? "free some space on that file system" : undefined,
    })
  }
}

export interface ReadOptions {
  /** Longer files are refused. */
  readonly maxBytes: number
  /** Only a file that nobody but its owner (this user, or root) can read or write. */
  readonly secret?: boolean
  /** Only a file that nobody but its owner (this user, or root) and its group can write. */
  readonly guarded?: boolean
  /** A user whose file it may be too: whoever reads it for a daemon of another user. */
  readonly owner?: number | undefined
}

/**
 * The whole of a regular file, or undefined where there is none.
 *
 * @throws MvmError `state` for a file that is too long, no regular file, or open to others; `io`.
 */
export function readWhole(path: string, options: ReadOptions): Uint8Array | undefined {
  try {
    return withFile(path, constants.O_RDONLY | constants.O_NONBLOCK, (fd) => {
      const stat = fstatSync(fd)
      if (!stat.isFile()) throw new MvmError("state", `${path}: not a regular file`)
      const closed = options.secret ? 0o077 : options.guarded ? 0o002 : 0
      if (closed !== 0 && ((stat.mode & closed) !== 0 || !isTrustedOwner(stat.uid, options))) {
        throw new MvmError(
          "state",
          `${path}: other users can ${options.secret ? "reach" : "write"} this file`,
          {
            hint: `it belongs to the user that runs mvm: chmod ${options.secret ? "600" : "o-w"} ${path}`,
          },
        )
      }
      if (stat.size > options.maxBytes) {
        throw new MvmError("state", `${path}: longer than ${options.maxBytes} bytes`)
      }
      const buffer = new Uint8Array(options.maxBytes + 1)
      let length = 0
      for (let count = -1; count !== 0 && length < buffer.length; length += count) {
        count = readSync(fd, buffer, length, buffer.length - length, length)
      }
      if (length > options.maxBytes) {
        throw new MvmError("state", `${path}: longer than ${options.maxBytes} bytes`)
      }
      return buffer.slice(0, length)
    })
  } catch (cause) {
    if (cause instanceof MvmError) throw cause
    const errno = errnoOf(cause)
    if (errno === "ENOENT") return undefined
    throw new MvmError("io", `${path}: cannot be read (${errno ?? "unknown"})`, { cause })
  }
}

function isTrustedOwner(uid: number, { owner }: ReadOptions): boolean {
  return uid === 0 || uid === process.geteuid?.() || uid === owner
}

function withFile<T>(path: string, flags: number, work: (fd: number) => T): T {
  const fd = openSync(path, flags, 0o600)
  try {
    return work(fd)
  } finally {
    closeSync(fd)
  }
}
