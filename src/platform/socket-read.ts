/**
 * @module platform/socket-read
 *
 * Reads of a socket into memory of the caller's choosing. The runtime brings what came in a buffer of its own each
 * time, which is good for knowing that something came and dear for bulk.
 */

import { ptr } from "bun:ffi"
import { constants } from "node:os"
import { errnoError, lastErrno, libc } from "./ffi.ts"

const MSG_DONTWAIT = 0x40
const { EAGAIN, EINTR } = constants.errno

/** What {@link readSocket} returns when nothing has come. */
export const NOTHING_YET = -1

/**
 * As much as fits `block` of what has come, 0 at the end, or {@link NOTHING_YET}.
 *
 * @throws Error with the errno's name as `code` when the connection broke; it says so once.
 */
export function readSocket(fd: number, block: Uint8Array<ArrayBuffer>): number {
  const got = Number(libc().recv(fd, ptr(block), block.length, MSG_DONTWAIT))
  if (got >= 0) return got
  const errno = lastErrno()
  if (errno === EAGAIN || errno === EINTR) return NOTHING_YET
  throw errnoError("recv")
}
