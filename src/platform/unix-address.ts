/**
 * @module platform/unix-address
 *
 * Names of unix sockets as the kernel takes them, connections to them, and sockets that wait there for a program that
 * is not there yet.
 */

import { ptr } from "bun:ffi"
import { chmodSync, closeSync, rmSync } from "node:fs"
import { MvmError } from "../lib/errors.ts"
import { errnoError, libc, systemError } from "./ffi.ts"

const AF_UNIX = 1
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000
const SOCK_NONBLOCK = 0o4000
const SUN_PATH_BYTES = 108
/** One program connects, and one more that looks whether it may. */
const BACKLOG = 4

/**
 * `struct sockaddr_un` for a path, or for an abstract name that begins with "@"; undefined for what is neither.
 *
 * @spec unix(7)
 */
export function socketAddress(name: string): Uint8Array | undefined {
  const isAbstract = name.startsWith("@")
  if (!isAbstract) return name.startsWith("/") ? pathAddress(name) : undefined
  // Abstract names have no end but their length.
  const address = pathAddress(name)?.subarray(0, -1)
  if (address) address[2] = 0
  return address
}

/** For a path, which may be relative; undefined for one that is too long. */
function pathAddress(path: string): Uint8Array | undefined {
  const bytes = Buffer.from(path)
  if (bytes.length > SUN_PATH_BYTES - 1) return undefined
  const address = Buffer.alloc(2 + bytes.length + 1)
  address.writeUInt16LE(AF_UNIX)
  address.set(bytes, 2)
  return address
}

/**
 * A connection to the socket at `path`, which may be relative, made without waiting. The runtime's own says ECONNREFUSED
 * where nobody listens and where too many wait to be accepted; here that is EAGAIN.
 *
 * @returns a descriptor that does not block
 * @throws Error with the errno's name as its `code`.
 */
export function connectNow(path: string): number {
  const address = pathAddress(path)
  if (!address) throw Object.assign(new Error("connect"), { code: "ENAMETOOLONG" })
  const fd = libc().socket(AF_UNIX, SOCK_STREAM_CLOEXEC | SOCK_NONBLOCK, 0)
  if (fd < 0) throw errnoError("socket")
  if (libc().connect(fd, ptr(address), address.length) === 0) return fd
  const error = errnoError("connect")
  closeSync(fd)
  throw error
}

/**
 * A socket that listens at `path`, mode 0600, in place of whatever was there. Nobody accepts: that is for a child that
 * inherits the descriptor. Who connects before waits.
 *
 * @returns the descriptor, which no child has by itself
 * @throws MvmError `io`.
 */
export function listenForChild(path: string): number {
  const address = socketAddress(path)
  if (!address) throw new MvmError("io", `${path} cannot be the path of a socket`)
  const fd = libc().socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0)
  if (fd < 0) throw systemError("socket")
  try {
    rmSync(path, { force: true })
    if (libc().bind(fd, ptr(address), address.length) !== 0) throw systemError(`bind ${path}`)
    // Nobody can connect before it listens.
    chmodSync(path, 0o600)
    if (libc().listen(fd, BACKLOG) !== 0) throw systemError(`listen ${path}`)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
