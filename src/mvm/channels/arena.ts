/**
 * @module mvm/channels/arena
 *
 * The shared memory file of the host and the regions in it. The file belongs to the MVM's user, mode 0600 (single
 * users whose QEMU others start are let at it beside, by an access control list); VMs
 * reach it through QEMU alone.
 *
 * The MVM never maps it. Every byte it puts there goes through pwrite, which reports a full /dev/shm as an
 * error, where a store through a mapping would be a SIGBUS. Regions are holes when they are given out (so they
 * read as zeros and cost nothing until they are used), and room for them is looked for first.
 */

import { closeSync, constants, fstatSync, ftruncateSync, openSync, unlinkSync } from "node:fs"
import { toHex } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { encodeFields } from "../../lib/encoding.ts"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { SCRATCH_BYTES } from "../../platform/ivshmem.ts"
import { isShared } from "../../platform/acl.ts"
import { punchHole } from "../../platform/posix.ts"
import { readAt, requireRoom, writeAt } from "../../platform/shared-file.ts"

/** A part of the arena that belongs to one channel. */
export interface ArenaRegion {
  readonly offset: number
  readonly lengthBytes: number
}

const PAGE_BYTES = 4096

/** One arena for each state directory. @param state its absolute path, symbolic links resolved */
export function arenaPathOf(state: string): string {
  const tag = toHex(sha256(encodeFields("mvm arena path", [state]))).slice(0, 16)
  return `/dev/shm/mvm-${tag}`
}

export class Arena {
  readonly path: string
  readonly sizeBytes: number
  readonly #fd: number
  /** Sorted by offset, never touching each other. */
  #free: ArenaRegion[]

  private constructor(path: string, sizeBytes: number, fd: number) {
    this.path = path
    this.sizeBytes = sizeBytes
    this.#fd = fd
    this.#free = [{ offset: 0, lengthBytes: sizeBytes - SCRATCH_BYTES }]
  }

  /**
   * Open the arena at `path`, made with `sizeBytes` (a power of two of at least 1 MiB) if absent.
   *
   * @throws MvmError `config` for a bad size, `state` when the file is not ours, `io` otherwise.
   */
  static open(path: string, sizeBytes: number): Arena {
    if (sizeBytes < 1 << 20 || (sizeBytes & (sizeBytes - 1)) !== 0) {
      throw new MvmError("config", `arena size ${sizeBytes} is not a power of two of at least 1 MiB`, {
        hint: "QEMU accepts only powers of two: use for example --arena 256M",
      })
    }
    const fd = openArenaFile(path)
    try {
      const stat = fstatSync(fd)
      if (
        !stat.isFile() ||
        stat.uid !== process.geteuid?.() ||
        (stat.mode & (isShared(path) ? 0o007 : 0o077)) !== 0
      ) {
        throw new MvmError("state", `${path} is not a private file of this user`, {
          hint: `remove ${path} or start with another --state`,
        })
      }
      if (stat.size !== 0 && stat.size !== sizeBytes) {
        throw new MvmError("config", `the arena ${path} has ${stat.size} bytes, not ${sizeBytes}`, {
          hint: `stop all VMs and remove ${path}, or start with --arena ${stat.size}`,
        })
      }
      if (stat.size === 0) ftruncateSync(fd, sizeBytes)
      return new Arena(path, sizeBytes, fd)
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  /** Bytes in no region; the scratch part, which is for the probes of every VM, never is in one. */
  get freeBytes(): number {
    return this.#free.reduce((sum, range) => sum + range.lengthBytes, SCRATCH_BYTES)
  }

  /**
   * A region of `lengthBytes` (a multiple of 4 KiB) that reads as zeros.
   *
   * @throws MvmError `too_large` when no arena of this size could hold it, `busy` when it is full now,
   *   `no_space` when /dev/shm is full.
   */
  allocate(lengthBytes: number): ArenaRegion {
    checkLength(lengthBytes)
    const greatest = this.sizeBytes - SCRATCH_BYTES
    if (lengthBytes > greatest) {
      throw new MvmError("too_large", `a region of ${lengthBytes} bytes does not fit the arena`, {
        hint: `the greatest is ${greatest}`,
      })
    }
    const index = this.#free.findIndex((range) => range.lengthBytes >= lengthBytes)
    const range = this.#free[index]
    if (!range) {
      throw new MvmError("busy", "no room for another channel in the arena", {
        hint: "close channels, or restart the MVM with a larger --arena",
      })
    }
    requireRoom(this.path, lengthBytes)
    const region = { offset: range.offset, lengthBytes }
    // Anybody who maps the arena may have written into what was free.
    punchHole(this.#fd, region.offset, lengthBytes)
    this.#take(index, region)
    return region
  }

  /** Mark a region of an earlier life of the MVM as taken. @throws MvmError `state` when it is not free. */
  reserve(region: ArenaRegion): void {
    checkLength(region.lengthBytes)
    const end = region.offset + region.lengthBytes
    const index = this.#free.findIndex(
      (range) => range.offset <= region.offset && range.offset + range.lengthBytes >= end,
    )
    if (index < 0) throw new MvmError("state", `arena region at ${region.offset} is already taken`)
    this.#take(index, region)
  }

  free(region: ArenaRegion): void {
    punchHole(this.#fd, region.offset, region.lengthBytes)
    const ranges = [...this.#free, { offset: region.offset, lengthBytes: region.lengthBytes }]
    ranges.sort((a, b) => a.offset - b.offset)
    const merged: { offset: number; lengthBytes: number }[] = []
    for (const range of ranges) {
      const last = merged.at(-1)
      if (last && last.offset + last.lengthBytes > range.offset) {
        throw new MvmError("internal", "arena region freed twice")
      }
      if (last && last.offset + last.lengthBytes === range.offset) last.lengthBytes += range.lengthBytes
      else merged.push({ ...range })
    }
    this.#free = merged
  }

  /** Store `bytes` at `at` within `region`. */
  write(region: ArenaRegion, at: number, bytes: Uint8Array): void {
    if (at < 0 || at + bytes.length > region.lengthBytes) throw new RangeError("outside the region")
    writeAt(this.#fd, bytes, region.offset + at)
  }

  /** `lengthBytes` at `at` within `region`, as they are now. Trust: whoever maps the arena wrote them. */
  read(region: ArenaRegion, at: number, lengthBytes: number): Uint8Array {
    if (at < 0 || at + lengthBytes > region.lengthBytes) throw new RangeError("outside the region")
    return readAt(this.#fd, lengthBytes, region.offset + at)
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** Close and remove the file: only when no VM maps it. */
  remove(): void {
    this.close()
    unlinkSync(this.path)
  }

  #take(index: number, region: ArenaRegion): void {
    const range = this.#free[index] as ArenaRegion
    const end = region.offset + region.lengthBytes
    const rest = [
      { offset: range.offset, lengthBytes: region.offset - range.offset },
      { offset: end, lengthBytes: range.offset + range.lengthBytes - end },
    ].filter((part) => part.lengthBytes > 0)
    this.#free.splice(index, 1, ...rest)
  }
}

function openArenaFile(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  } catch (error) {
    throw new MvmError("io", `cannot open the arena ${path}: ${errnoOf(error) ?? "failed"}`, { cause: error })
  }
}

function checkLength(lengthBytes: number): void {
  if (lengthBytes <= 0 || lengthBytes % PAGE_BYTES !== 0) throw new RangeError("not a multiple of 4 KiB")
}
