/**
 * @module platform/posix
 *
 * What the data loops need of the operating system and the runtime does not offer: poll over several descriptors,
 * pipe sizes, the credentials of a local socket's peer, and sealed memory.
 */

import { ptr, type Pointer } from "bun:ffi"
import { closeSync, ftruncateSync } from "node:fs"
import { MvmError } from "../lib/errors.ts"
import { errnoError, lastErrno, libc, systemError } from "./ffi.ts"

export const POLLIN = 1
export const POLLOUT = 4
export const POLLERR = 8
export const POLLHUP = 16
export const POLLNVAL = 32

const EINTR = 4
const POLLFD_BYTES = 8
const SOL_SOCKET = 1
const SO_PEERCRED = 17
const UCRED_BYTES = 12
const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032
const F_ADD_SEALS = 1033
const F_SEAL_SEAL_SHRINK_GROW = 1 | 2 | 4
const MFD_CLOEXEC_ALLOW_SEALING = 1 | 2

/** Who is at the other end of a local socket, as of its connect(). */
export interface PeerCredentials {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/**
 * poll(2) over a fixed set of descriptors, with its buffer made once. Change what is waited for with
 * {@link PollSet.setEvents}; a negative descriptor is skipped.
 */
export class PollSet {
  readonly #count: number
  readonly #view: DataView
  readonly #address: Pointer
  // The pointer stays valid only while the buffer lives.
  readonly #buffer: Uint8Array

  constructor(descriptors: readonly { fd: number; events: number }[]) {
    this.#count = descriptors.length
    this.#buffer = new Uint8Array(Math.max(1, this.#count) * POLLFD_BYTES)
    this.#view = new DataView(this.#buffer.buffer)
    this.#address = ptr(this.#buffer)
    descriptors.forEach(({ fd, events }, index) => {
      this.setDescriptor(index, fd)
      this.setEvents(index, events)
    })
  }

  setDescriptor(index: number, fd: number): void {
    this.#view.setInt32(index * POLLFD_BYTES, fd, true)
  }

  setEvents(index: number, events: number): void {
    this.#view.setInt16(index * POLLFD_BYTES + 4, events, true)
  }

  /** What poll found for descriptor `index`: a mask of POLL* bits. */
  revents(index: number): number {
    return this.#view.getInt16(index * POLLFD_BYTES + 6, true)
  }

  /**
   * How many descriptors have events; 0 after `timeoutMs` (-1 waits for ever) or a signal.
   *
   * @throws MvmError `io`.
   */
  wait(timeoutMs: number): number {
    const ready = libc().poll(this.#address, this.#count, timeoutMs)
    if (ready >= 0) return ready
    if (lastErrno() !== EINTR) throw systemError("poll")
    for (let index = 0; index < this.#count; index++) this.#view.setInt16(index * POLLFD_BYTES + 6, 0, true)
    return 0
  }
}

/**
 * Makes a pipe hold `lengthBytes` and returns what it holds now. A refusal (not a pipe, or above the user's limit)
 * is not a failure: the pipe works as it is, and 0 or its old size is returned.
 */
export function setPipeSize(fd: number, lengthBytes: number): number {
  const size = libc().fcntl(fd, F_SETPIPE_SZ, lengthBytes)
  if (size > 0) return size
  return Math.max(0, libc().fcntl(fd, F_GETPIPE_SZ, 0))
}

/** pid, uid and gid of a connected unix socket's peer. @throws MvmError `io` for any other descriptor. */
export function peerCredentials(fd: number): PeerCredentials {
  const value = new DataView(new ArrayBuffer(UCRED_BYTES))
  const length = new Uint32Array([UCRED_BYTES])
  if (libc().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ptr(value.buffer), ptr(length)) !== 0) {
    throw systemError("getsockopt SO_PEERCRED")
  }
  if (length[0] !== UCRED_BYTES) throw new MvmError("io", "getsockopt SO_PEERCRED: unexpected length")
  const pid = value.getInt32(0, true)
  // A socket that is not connected locally answers with pid 0 and ids of all ones.
  if (pid <= 0) throw new MvmError("io", "getsockopt SO_PEERCRED: no peer")
  return { pid, uid: value.getUint32(4, true), gid: value.getUint32(8, true) }
}

/**
 * Anonymous shared memory of a fixed size: sealed against shrinking, growing and further seals, so that no holder
 * can take it away from under another. Others open it as /proc/PID/fd/N. The caller closes the descriptor.
 *
 * @throws MvmError `io`.
 */
export function sealedMemory(name: string, lengthBytes: number): number {
  const fd = libc().memfd_create(ptr(Buffer.from(`${name}\0`)), MFD_CLOEXEC_ALLOW_SEALING)
  if (fd < 0) throw systemError("memfd_create")
  try {
    ftruncateSync(fd, lengthBytes)
    if (libc().fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL_SHRINK_GROW) !== 0) throw systemError("fcntl F_ADD_SEALS")
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** FALLOC_FL_KEEP_SIZE */
const KEEP_SIZE = 1
/** FALLOC_FL_PUNCH_HOLE, which wants the other, too. */
const PUNCH_HOLE = 2 | KEEP_SIZE

/** Gives the pages of this part of a file back; it reads as zeros from now on. @throws MvmError `io`. */
export function punchHole(fd: number, offset: number, lengthBytes: number): void {
  if (libc().fallocate(fd, PUNCH_HOLE, offset, lengthBytes) !== 0) throw systemError("fallocate")
}

/** Gives this part of a file its pages now; what is in it stays. @throws Error with `code`, `ENOSPC` among them. */
export function allocatePages(fd: number, offset: number, lengthBytes: number): void {
  if (libc().fallocate(fd, KEEP_SIZE, offset, lengthBytes) !== 0) throw errnoError("fallocate")
}

/**
 * Lets whoever else waits for this processor run first. A loop that looks again and again needs it: the kernel likes
 * to wake a socket's reader on the processor of its writer, which would then keep the reader waiting.
 */
export function yieldProcessor(): void {
  libc().sched_yield()
}

/** Leaves the processor to others for about `us` microseconds; the kernel adds some 50. */
export function nap(us: number): void {
  libc().usleep(us)
}
