/**
 * @module platform/mmap
 *
 * Shared read-write mappings: the arena's file, a channel's own file or memfd, a PCI BAR in sysfs, `/dev/mem`. And
 * files that are only read.
 *
 * Whoever can truncate a mapped file can kill its readers with SIGBUS. A file that is already too short is refused
 * here; that nobody shortens it later is the business of who owns it (mode 0600, or a sealed memfd).
 */

import { toArrayBuffer, type Pointer } from "bun:ffi"
import { closeSync, constants, fstatSync, openSync } from "node:fs"
import { errnoOf, MvmError } from "../lib/errors.ts"
import { libc, systemError } from "./ffi.ts"

const PROT_READ = 1
const PROT_READ_WRITE = 3
const MAP_SHARED = 1
const MAP_PRIVATE = 2
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MADV_POPULATE_READ = 22
const PAGE_BYTES = 4096
/** Linux's user address space on x86-64 and arm64 ends below 2^48, so a pointer is an exact number. */
const ADDRESS_LIMIT = 2 ** 48

export interface Extent {
  /** A multiple of 4096. */
  readonly offsetBytes: number
  readonly lengthBytes: number
}

/** A mapping. `bytes` is the memory itself: it may change at any instant under whoever reads it. */
export class Mapping {
  readonly bytes: Uint8Array
  readonly address: Pointer
  #mapped = true

  constructor(address: number, lengthBytes: number) {
    this.address = address as Pointer
    this.bytes = new Uint8Array(toArrayBuffer(address as Pointer, 0, lengthBytes))
  }

  /** Gives the memory back. Every view of it becomes empty, so a late access fails instead of faulting. */
  unmap(): void {
    if (!this.#mapped) return
    this.#mapped = false
    const lengthBytes = this.bytes.length
    ;(this.bytes.buffer as ArrayBuffer).transfer(0)
    libc().munmap(this.address, lengthBytes)
  }
}

/**
 * Maps `extent` of the file or device at `path`, shared, for reading and writing. Never opens with O_SYNC: on
 * `/dev/mem` that flag alone decides between write-back and uncached memory.
 *
 * @throws MvmError `usage` for an extent that is not page-aligned, `no_space` for a file shorter than the extent,
 * `io` when the kernel refuses.
 */
export function mapShared(path: string, extent: Extent): Mapping {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR)
  } catch (cause) {
    throw new MvmError("io", `mmap ${path}: ${errnoOf(cause) ?? "cannot be opened"}`, { cause })
  }
  try {
    return mapSharedFd(fd, extent, path)
  } finally {
    closeSync(fd)
  }
}

/** As {@link mapShared}, for an open descriptor, which stays open. `name` is for errors. */
export function mapSharedFd(fd: number, extent: Extent, name: string): Mapping {
  const { offsetBytes, lengthBytes } = extent
  if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes % PAGE_BYTES !== 0) {
    throw new MvmError("usage", `mmap ${name}: offset ${offsetBytes} is not a multiple of ${PAGE_BYTES}`)
  }
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes <= 0) {
    throw new MvmError("usage", `mmap ${name}: length ${lengthBytes} is not a positive number of bytes`)
  }
  const status = fstatSync(fd)
  // A device (/dev/mem) has no size to compare with.
  if (status.isFile() && offsetBytes + lengthBytes > status.size) {
    throw new MvmError(
      "no_space",
      `mmap ${name}: ${status.size} bytes long, ${offsetBytes + lengthBytes} needed`,
    )
  }
  const address = Number(libc().mmap(null, lengthBytes, PROT_READ_WRITE, MAP_SHARED, fd, offsetBytes))
  if (address <= 0 || address >= ADDRESS_LIMIT) throw systemError(`mmap ${name}`)
  return new Mapping(address, lengthBytes)
}

/**
 * One place in memory through which a file is read part by part: each part replaces the one before, so that neither
 * addresses nor array buffers are made anew.
 */
export class ReadingWindow {
  readonly #fd: number
  readonly #mapping: Mapping

  private constructor(fd: number, mapping: Mapping) {
    this.#fd = fd
    this.#mapping = mapping
  }

  /** @returns undefined when the kernel cannot, for whatever reason */
  static open(fd: number, lengthBytes: number): ReadingWindow | undefined {
    const address = Number(libc().mmap(null, lengthBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    if (address <= 0 || address >= ADDRESS_LIMIT) return undefined
    return new ReadingWindow(fd, new Mapping(address, lengthBytes))
  }

  /**
   * Shows `extent` of the file, its pages present: an error of the disk is seen here and is no signal later.
   *
   * @returns its memory, until the next call; undefined when the kernel cannot
   */
  show({ offsetBytes, lengthBytes }: Extent): Uint8Array | undefined {
    const { address } = this.#mapping
    const at = libc().mmap(address, lengthBytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, this.#fd, offsetBytes)
    if (Number(at) !== Number(address)) return undefined
    if (libc().madvise(address, lengthBytes, MADV_POPULATE_READ) !== 0) return undefined
    return this.#mapping.bytes
  }

  close(): void {
    this.#mapping.unmap()
  }
}
