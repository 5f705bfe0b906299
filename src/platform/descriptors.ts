/**
 * @module platform/descriptors
 *
 * Descriptors the runtime makes no use of by itself: pipes, and nothing in the place of something.
 */

import { ptr } from "bun:ffi"
import { closeSync, constants, openSync } from "node:fs"
import { libc, systemError } from "./ffi.ts"

/** O_CLOEXEC, which node:fs has no name for; the same on x86-64 and arm64. */
const O_CLOEXEC = 0o2000000

export interface Pipe {
  readonly readFd: number
  readonly writeFd: number
}

/**
 * A pipe. A child is better given one than what the runtime makes of "pipe", a pair of sockets: `/dev/stdin` can be
 * opened, and a reader that leaves is SIGPIPE and not ECONNRESET to the writer.
 *
 * @throws MvmError `io`.
 */
export function makePipe(): Pipe {
  const fds = new Int32Array(2)
  if (libc().pipe2(ptr(fds), O_CLOEXEC) !== 0) throw systemError("pipe2")
  return { readFd: fds[0]!, writeFd: fds[1]! }
}

/** From now on `fd` reads as ended and takes everything. @throws MvmError `io`. */
export function replaceByNothing(fd: number): void {
  const nothing = openSync("/dev/null", constants.O_RDWR)
  try {
    if (libc().dup2(nothing, fd) < 0) throw systemError("dup2")
  } finally {
    closeSync(nothing)
  }
}
