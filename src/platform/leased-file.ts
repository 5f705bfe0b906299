/**
 * @module platform/leased-file
 *
 * A regular file read where it lies in the page cache, without a copy. Whoever truncates a file that is mapped kills
 * its reader with SIGBUS, so it is mapped only under a read lease: while that is held nobody has the file open for
 * writing, and the kernel keeps whoever wants to (or truncates it) waiting until the lease is given back, which
 * happens at once. Pages are made present before they are looked at, so a disk that fails is an error, not a signal.
 *
 * Not for file systems whose files others change without this kernel's knowledge (NFS, FUSE), files of other users,
 * and files that somebody writes: {@link LeasedFile.take} gives none, and the file is to be read as any other.
 *
 * @spec fcntl(2) "Leases", madvise(2) MADV_POPULATE_READ (Linux 5.14)
 */

import { closeSync, constants, fstatSync, openSync, statfsSync } from "node:fs"
import { libc } from "./ffi.ts"
import { ReadingWindow } from "./mmap.ts"

const F_SETSIG = 10
const F_SETLEASE = 1024
const F_GETLEASE = 1025
const F_RDLCK = 0
const F_UNLCK = 2
const SEEK_SET = 0
const SEEK_CUR = 1

/** Ignored where nobody listens, unlike SIGIO, which the kernel would send by default and which ends a process. */
const LEASE_SIGNAL = "SIGURG"
const LEASE_SIGNAL_NUMBER = 23

/** A multiple of every page size; not so long that a slow disk keeps the caller from its other duties. */
const WINDOW_BYTES = 8 << 20

/** Shorter files are read in one or two calls. */
const SHORTEST_BYTES = 1 << 20

/** ext2 to ext4, xfs, btrfs, f2fs, tmpfs, overlayfs, squashfs. @spec Linux include/uapi/linux/magic.h */
const LOCAL_FILE_SYSTEMS = new Set([
  0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x01021994, 0x794c7630, 0x73717368,
])

const NOTHING = new Uint8Array(0)

export class LeasedFile {
  readonly #fd: number
  /** A description of this process's own: the lease on one that others hold too would outlive a killed process. */
  readonly #own: number
  readonly #sizeBytes: number
  #offset: number
  readonly #window: ReadingWindow
  #shown: { readonly bytes: Uint8Array; readonly offset: number } | undefined
  #isHeld = true
  readonly #onSignal = (): void => {
    if (!this.#isLeased()) this.release()
  }

  private constructor(fd: number, own: number, window: ReadingWindow) {
    this.#fd = fd
    this.#own = own
    this.#window = window
    this.#offset = Number(libc().lseek(fd, 0, SEEK_CUR))
    // Under the lease: nobody can change it any more.
    this.#sizeBytes = fstatSync(own).size
    process.on(LEASE_SIGNAL, this.#onSignal)
  }

  /** The file of `fd`, from where `fd` stands; undefined where it cannot be leased or is not worth it. */
  static take(fd: number): LeasedFile | undefined {
    const before = fstatSync(fd)
    if (!before.isFile() || before.size < SHORTEST_BYTES) return undefined
    if (!LOCAL_FILE_SYSTEMS.has(Number(statfsSync(`/proc/self/fd/${fd}`).type))) return undefined
    const own = openAgain(fd)
    if (own === undefined) return undefined
    const window = ReadingWindow.open(own, WINDOW_BYTES)
    if (
      window &&
      libc().fcntl(own, F_SETSIG, LEASE_SIGNAL_NUMBER) === 0 &&
      libc().fcntl(own, F_SETLEASE, F_RDLCK) === 0
    ) {
      return new LeasedFile(fd, own, window)
    }
    window?.close()
    closeSync(own)
    return undefined
  }

  /**
   * The next bytes, at most `mostBytes`; empty at the end. Undefined: no longer, the rest is to be read through the
   * descriptor, which stands where this ended. The view is the file itself, to be done with before the event loop
   * runs again.
   */
  next(mostBytes: number): Uint8Array | undefined {
    if (!this.#isHeld) return undefined
    const left = this.#sizeBytes - this.#offset
    const shown = this.#isLeased() ? this.#shownAt(left) : undefined
    if (shown === undefined) {
      this.release()
      return undefined
    }
    const from = this.#offset - shown.offset
    const bytes = shown.bytes.subarray(from, from + Math.min(mostBytes, left))
    this.#offset += bytes.length
    // As if it had been read: others who hold the descriptor, and whoever watches it, see how far this is.
    libc().lseek(this.#fd, this.#offset, SEEK_SET)
    return bytes
  }

  /** Lets writers at the file. */
  release(): void {
    if (!this.#isHeld) return
    this.#isHeld = false
    process.off(LEASE_SIGNAL, this.#onSignal)
    this.#window.close()
    libc().fcntl(this.#own, F_SETLEASE, F_UNLCK)
    closeSync(this.#own)
  }

  /** While a writer waits this is no longer so, though the file is still safe for as long as the kernel lets it wait. */
  #isLeased(): boolean {
    return libc().fcntl(this.#own, F_GETLEASE, 0) === F_RDLCK
  }

  #shownAt(left: number): { readonly bytes: Uint8Array; readonly offset: number } | undefined {
    const offset = this.#offset - (this.#offset % WINDOW_BYTES)
    if (left <= 0) return { bytes: NOTHING, offset: this.#offset }
    if (this.#shown?.offset === offset) return this.#shown
    const lengthBytes = Math.min(WINDOW_BYTES, this.#sizeBytes - offset)
    const bytes = this.#window.show({ offsetBytes: offset, lengthBytes })
    this.#shown = bytes && { bytes, offset }
    return this.#shown
  }
}

/** The same file, opened once more; undefined where that cannot be (no /proc, or another user's). */
function openAgain(fd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY)
  } catch {
    return undefined
  }
}
