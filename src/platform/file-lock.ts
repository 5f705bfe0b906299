/**
 * @module platform/file-lock
 *
 * A lock that one process holds and that ends with it, however it ends: flock(2) on a file that is never removed
 * (removing it would let two processes lock two files of one name). The file holds the holder's pid, for people.
 */

import { closeSync, constants, ftruncateSync, openSync, readSync, writeSync } from "node:fs"
import { errnoOf, MvmError } from "../lib/errors.ts"
import { lastErrno, libc, systemError } from "./ffi.ts"

const LOCK_EX_NB = 2 | 4
const EWOULDBLOCK = 11
const MAX_PID_TEXT = 16
/** A child that inherited the descriptor would keep the lock alive past its parent. */
const O_CLOEXEC = 0o2000000

export type LockAttempt =
  | { readonly held: true; release(): void }
  /** Somebody else holds it; `pid` as they wrote it, undefined when it cannot be read. */
  | { readonly held: false; readonly pid: number | undefined }

/** Locks `path` (made with mode 0600 if absent) without waiting. @throws MvmError `io`. */
export function lockFile(path: string): LockAttempt {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
  const fd = openLock(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC)
  try {
    if (libc().flock(fd, LOCK_EX_NB) !== 0) {
      if (lastErrno() !== EWOULDBLOCK) throw systemError("flock")
      const pid = readPid(fd)
      closeSync(fd)
      return { held: false, pid }
    }
    ftruncateSync(fd, 0)
    writeSync(fd, `${process.pid}\n`, 0)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  let open = true
  return {
    held: true,
    release() {
      if (open) closeSync(fd)
      open = false
    },
  }
}

function openLock(path: string, flags: number): number {
  try {
    return openSync(path, flags, 0o600)
  } catch (cause) {
    throw new MvmError("io", `${path}: cannot be opened for locking (${errnoOf(cause) ?? "unknown"})`, {
      cause,
    })
  }
}

function readPid(fd: number): number | undefined {
  const buffer = new Uint8Array(MAX_PID_TEXT)
  const text = new TextDecoder().decode(buffer.subarray(0, readSync(fd, buffer, 0, MAX_PID_TEXT, 0)))
  return /^[1-9][0-9]*\n$/.test(text) ? Number(text) : undefined
}
