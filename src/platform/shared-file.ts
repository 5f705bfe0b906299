/**
 * @module platform/shared-file
 *
 * Files of shared memory: private files on /dev/shm that others map. Who writes through a mapping dies where the file
 * system is full, so there is room before a part is given out; who writes with pwrite is told.
 */

import { constants, openSync, readSync, statfsSync, writeSync } from "node:fs"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { allocatePages } from "./posix.ts"

/** Left to others on the file system. */
const RESERVE_BYTES = 1 << 20

/**
 * A descriptor of a new private file. @throws MvmError `io`, also when there is one by that name.
 */
export function createSharedFile(path: string): number {
  try {
    return openSync(
      path,
      constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    )
  } catch (cause) {
    throw new MvmError("io", `${path}: cannot be made (${errnoOf(cause) ?? "unknown"})`, { cause })
  }
}

/** @throws MvmError `no_space` unless the file system of `path` has `lengthBytes` to spare. */
export function requireRoom(path: string, lengthBytes: number): void {
  const { bavail, bsize } = statfsSync(path)
  if (bavail * bsize < lengthBytes + RESERVE_BYTES) throw noSpace()
}

/**
 * Pages for the first `lengthBytes` of a file in memory: a write into a hole, where there is no room, would be the end
 * of the QEMU whose guest makes it.
 *
 * @throws MvmError `no_space`.
 */
export function allocate(fd: number, lengthBytes: number): void {
  try {
    allocatePages(fd, 0, lengthBytes)
  } catch (error) {
    throw errnoOf(error) === "ENOSPC" ? noSpace(error) : error
  }
}

/** pwrite(2) of all of `bytes`. @throws MvmError `no_space`. */
export function writeAt(fd: number, bytes: Uint8Array, position: number): void {
  let at = 0
  while (at < bytes.length) {
    try {
      at += writeSync(fd, bytes, at, bytes.length - at, position + at)
    } catch (error) {
      throw errnoOf(error) === "ENOSPC" ? noSpace(error) : error
    }
  }
}

/** pread(2) of exactly `lengthBytes`. Trust: whoever maps the file wrote them. @throws MvmError `io`. */
export function readAt(fd: number, lengthBytes: number, position: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  if (readSync(fd, bytes, 0, lengthBytes, position) === lengthBytes) return bytes
  throw new MvmError("io", "a file of shared memory is shorter than it was")
}

function noSpace(cause?: unknown): MvmError {
  return new MvmError("no_space", "/dev/shm is full", {
    cause,
    hint: "free space in /dev/shm, or mount it larger: mount -o remount,size=N /dev/shm",
  })
}
