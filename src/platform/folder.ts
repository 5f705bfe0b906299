/**
 * @module platform/folder
 *
 * A folder as an open descriptor, and what is done to the names in it. No call here takes a path: a name is one
 * component, and none follows a symbolic link, so that nobody who changes the tree meanwhile can lead a call
 * elsewhere. Names are the file system's bytes.
 *
 * Failures are thrown as the runtime's own calls do: an Error whose `code` is the errno's name.
 */

import { closeSync, constants, fsync, fsyncSync, readdirSync, statfsSync } from "node:fs"
import { errnoError, libc } from "./ffi.ts"

const AT_FDCWD = -100
const AT_SYMLINK_NOFOLLOW = 0x100
const AT_EMPTY_PATH = 0x1000
const O_CLOEXEC = 0o2000000
const STATX_BASIC_STATS = 0x7ff
const STATX_BYTES = 256
const STAT_BLOCK_BYTES = 512
const TIMESPEC_BYTES = 16
const UTIME_OMIT = 0x3fff_fffen
const PATH_MAX = 4096
const SEEK_DATA = 3
const SEEK_HOLE = 4
const LOCK_EX_NB = 2 | 4

/** Nanoseconds are 0 to 999,999,999 and count forward, also before 1970. */
export interface FileTime {
  readonly seconds: number
  readonly nanoseconds: number
}

export type FileKind = "file" | "directory" | "symlink" | "special"

export interface FileStatus {
  readonly kind: FileKind
  /** The twelve bits of permissions, set-id and sticky. */
  readonly mode: number
  readonly lengthBytes: number
  /** What the file occupies; less than its length where it has holes. */
  readonly allocatedBytes: number
  readonly modified: FileTime
  /** Changes whenever content or attributes do; nobody can set it. */
  readonly changed: FileTime
  /** Device and inode: whether two names or descriptors are one file. */
  readonly identity: string
  readonly links: number
  readonly uid: number
}

const KINDS: Readonly<Record<number, FileKind>> = {
  [constants.S_IFREG]: "file",
  [constants.S_IFDIR]: "directory",
  [constants.S_IFLNK]: "symlink",
}

export class Folder {
  readonly fd: number

  private constructor(fd: number) {
    this.fd = fd
  }

  /** The folder at `path`, as this process resolves it: for a path that its own user named. */
  static open(path: string | Uint8Array): Folder {
    const bytes = typeof path === "string" ? Buffer.from(path) : path
    return new Folder(openAt(AT_FDCWD, bytes, constants.O_RDONLY | constants.O_DIRECTORY, 0))
  }

  /** The same folder under a descriptor of its own. */
  again(): Folder {
    return new Folder(openAt(this.fd, Buffer.from("."), constants.O_RDONLY | constants.O_DIRECTORY, 0))
  }

  /** @throws Error `ENOTDIR` or `ELOOP` for what is no folder, a symbolic link to one included. */
  enter(name: Uint8Array): Folder {
    return new Folder(
      openAt(this.fd, name, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW, 0),
    )
  }

  make(name: Uint8Array, mode: number): void {
    check(libc().mkdirat(this.fd, cString(name), mode), "mkdir")
  }

  /** Opens a file without following a link and without waiting for the other end of a fifo. */
  openFile(name: Uint8Array, flags: number, mode = 0o600): number {
    return openAt(
      this.fd,
      name,
      flags | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY,
      mode,
    )
  }

  /** What the name stands for, or undefined where it is free. */
  status(name: Uint8Array): FileStatus | undefined {
    return statusAt(this.fd, name, AT_SYMLINK_NOFOLLOW)
  }

  /** Puts `from` in the place of `to` in one step. */
  rename(from: Uint8Array, to: Uint8Array): void {
    check(libc().renameat(this.fd, cString(from), this.fd, cString(to)), "rename")
  }

  remove(name: Uint8Array): void {
    check(libc().unlinkat(this.fd, cString(name), 0), "unlink")
  }

  link(name: Uint8Array, text: Uint8Array): void {
    check(libc().symlinkat(cString(text), this.fd, cString(name)), "symlink")
  }

  readLink(name: Uint8Array): Uint8Array {
    const buffer = new Uint8Array(PATH_MAX)
    const length = Number(libc().readlinkat(this.fd, cString(name), buffer, buffer.length))
    if (length < 0) throw errnoError("readlink")
    return buffer.slice(0, length)
  }

  /** Sets the time of the name itself, a symbolic link's own too. */
  setTime(name: Uint8Array, modified: FileTime): void {
    check(libc().utimensat(this.fd, cString(name), timespecs(modified), AT_SYMLINK_NOFOLLOW), "utimensat")
  }

  /** Every name in the folder but `.` and `..`, in no order. */
  names(): Uint8Array[] {
    // The descriptor's own position is left alone: this opens the folder anew.
    return readdirSync(`/proc/self/fd/${this.fd}`, { encoding: "buffer" })
  }

  /** What a user without privileges may still write on this file system. */
  freeBytes(): number {
    const { bavail, bsize } = statfsSync(`/proc/self/fd/${this.fd}`)
    return bavail * bsize
  }

  /** On disk are the names it holds; their content is its own affair. */
  sync(): void {
    fsyncSync(this.fd)
  }

  /** As {@link sync}, without holding up this process. */
  synced(): Promise<void> {
    return new Promise((resolve, reject) => {
      fsync(this.fd, (error) => (error ? reject(error) : resolve()))
    })
  }

  close(): void {
    closeSync(this.fd)
  }
}

/** @throws Error as the others do. */
export function statusOf(fd: number): FileStatus {
  const status = statusAt(fd, new Uint8Array(0), AT_EMPTY_PATH)
  if (status === undefined) throw errnoError("statx")
  return status
}

export function setModified(fd: number, modified: FileTime): void {
  check(libc().futimens(fd, timespecs(modified)), "futimens")
}

export function sameTime(a: FileTime, b: FileTime): boolean {
  return a.seconds === b.seconds && a.nanoseconds === b.nanoseconds
}

/**
 * Locks an open file against others that do so too, until its descriptor is closed or the process ends.
 *
 * @returns whether it could: false while another holds it
 */
export function tryLock(fd: number): boolean {
  if (libc().flock(fd, LOCK_EX_NB) === 0) return true
  const error = errnoError("flock")
  if (error.code === "EAGAIN") return false
  throw error
}

/**
 * Where the next data at or after `offset` begins, or undefined where only a hole follows. A file system that knows
 * of no holes says that all is data.
 */
export function nextData(fd: number, offset: number): number | undefined {
  const at = Number(libc().lseek(fd, offset, SEEK_DATA))
  if (at >= 0) return at
  const error = errnoError("lseek")
  if (error.code === "ENXIO") return undefined
  if (error.code === "EINVAL") return offset
  throw error
}

/** Where the data at `offset` ends: the next hole, or the file's end. */
export function nextHole(fd: number, offset: number): number {
  const at = Number(libc().lseek(fd, offset, SEEK_HOLE))
  if (at >= 0) return at
  const error = errnoError("lseek")
  if (error.code === "EINVAL") return statusOf(fd).lengthBytes
  throw error
}

function openAt(at: number, name: Uint8Array, flags: number, mode: number): number {
  const fd = libc().openat(at, cString(name), flags | O_CLOEXEC, mode)
  if (fd < 0) throw errnoError("open")
  return fd
}

/** @spec statx(2) */
function statusAt(at: number, name: Uint8Array, flags: number): FileStatus | undefined {
  const buffer = new DataView(new ArrayBuffer(STATX_BYTES))
  const bytes = new Uint8Array(buffer.buffer)
  if (libc().statx(at, cString(name), flags, STATX_BASIC_STATS, bytes) !== 0) {
    const error = errnoError("statx")
    if (error.code === "ENOENT" && name.length > 0) return undefined
    throw error
  }
  const mode = buffer.getUint16(28, true)
  return {
    kind: KINDS[mode & constants.S_IFMT] ?? "special",
    mode: mode & 0o7777,
    lengthBytes: Number(buffer.getBigUint64(40, true)),
    allocatedBytes: Number(buffer.getBigUint64(48, true)) * STAT_BLOCK_BYTES,
    changed: timeAt(buffer, 96),
    modified: timeAt(buffer, 112),
    links: buffer.getUint32(16, true),
    uid: buffer.getUint32(20, true),
    identity: `${buffer.getUint32(136, true)}:${buffer.getUint32(140, true)}:${buffer.getBigUint64(32, true)}`,
  }
}

function timeAt(view: DataView, offset: number): FileTime {
  return { seconds: Number(view.getBigInt64(offset, true)), nanoseconds: view.getUint32(offset + 8, true) }
}

/** struct timespec[2]: the access time stays, the modification time is `modified`. */
function timespecs({ seconds, nanoseconds }: FileTime): Uint8Array {
  const view = new DataView(new ArrayBuffer(2 * TIMESPEC_BYTES))
  view.setBigInt64(8, UTIME_OMIT, true)
  view.setBigInt64(16, BigInt(seconds), true)
  view.setBigInt64(24, BigInt(nanoseconds), true)
  return new Uint8Array(view.buffer)
}

/** A name with the NUL that ends it in C. */
function cString(name: Uint8Array): Uint8Array {
  if (name.includes(0)) throw Object.assign(new Error("a name with a NUL byte"), { code: "EINVAL" })
  const out = new Uint8Array(name.length + 1)
  out.set(name)
  return out
}

function check(result: number, call: string): void {
  if (result !== 0) throw errnoError(call)
}
