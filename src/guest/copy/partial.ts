/**
 * @module guest/copy/partial
 *
 * A file that is not whole yet: under a hidden name in the folder where it will be, locked by the process that
 * fills it. It gets its own name in one step once all of it is on disk. What a copy that broke off left there is
 * taken up again by the next one, which compares it block by block.
 */

import { closeSync, constants, fchmodSync, fsync, ftruncateSync, writeSync } from "node:fs"
import { errnoOf, MvmError } from "../../lib/errors.ts"
import { punchHole } from "../../platform/posix.ts"
import { setModified, statusOf, tryLock, type FileTime, type Folder } from "../../platform/folder.ts"
import { BLOCK_BYTES } from "./blocks.ts"
import { partialNameOf } from "./names.ts"

const TRIES = 8
/** What a broken copy may leave: less is not worth taking up again. */
const WORTH_KEEPING_BYTES = BLOCK_BYTES

export interface FileAttributes {
  /** Permissions alone. */
  readonly mode: number
  readonly modified: FileTime
}

export class Partial {
  readonly fd: number
  readonly #folder: Folder
  readonly #name: Uint8Array
  readonly #finalName: Uint8Array
  /** What a broken copy left of it. */
  #keptBytes: number
  #isOpen = true

  private constructor(
    fd: number,
    folder: Folder,
    names: { own: Uint8Array; final: Uint8Array },
    keptBytes: number,
  ) {
    this.fd = fd
    this.#folder = folder
    this.#finalName = names.final
    this.#name = names.own
    this.#keptBytes = keptBytes
  }

  /**
   * Takes up or begins the file that will be `finalName` in `folder`.
   *
   * @param owner as {@link partialNameOf} takes it
   * @throws MvmError `busy` while another copy fills it, and the system's errors.
   */
  static open(folder: Folder, finalName: Uint8Array, owner?: Uint8Array): Partial {
    const name = partialNameOf(finalName, owner)
    for (let round = 0; round < TRIES; round += 1) {
      const fd = openOrRemove(folder, name)
      if (fd === undefined) continue
      try {
        const status = statusOf(fd)
        if (status.kind !== "file" || status.links !== 1 || status.uid !== process.geteuid?.()) {
          // Not ours: what is written there might turn up in another place.
          folder.remove(name)
        } else if (!tryLock(fd)) {
          throw new MvmError("busy", "another copy writes this file now")
        } else if (folder.status(name)?.identity === status.identity) {
          return new Partial(fd, folder, { own: name, final: finalName }, statusOf(fd).lengthBytes)
        }
        closeSync(fd)
      } catch (error) {
        closeSync(fd)
        throw error
      }
    }
    throw new MvmError("busy", "somebody else keeps changing this file")
  }

  /** Whole blocks that are there already. */
  get keptBlocks(): number {
    return Math.floor(this.#keptBytes / BLOCK_BYTES)
  }

  write(bytes: Uint8Array, offset: number): void {
    for (let at = 0; at < bytes.length;) {
      at += writeSync(this.fd, bytes, at, bytes.length - at, offset + at)
    }
  }

  /** Makes `[offset, offset + lengthBytes)` read as zeros; what was never written does so by itself. */
  clear(offset: number, lengthBytes: number): void {
    const end = Math.min(offset + lengthBytes, this.#keptBytes)
    if (end <= offset) return
    try {
      punchHole(this.fd, offset, end - offset)
    } catch {
      // A file system without holes.
      for (let at = offset; at < end; at += BLOCK_BYTES) {
        this.write(new Uint8Array(Math.min(BLOCK_BYTES, end - at)), at)
      }
    }
  }

  /** Forgets what is there past `lengthBytes`. */
  keep(lengthBytes: number): void {
    ftruncateSync(this.fd, lengthBytes)
    this.#keptBytes = lengthBytes
  }

  /** All of it is there: on disk with its attributes, and then under its own name. */
  async commit(lengthBytes: number, { mode, modified }: FileAttributes): Promise<void> {
    ftruncateSync(this.fd, lengthBytes)
    fchmodSync(this.fd, mode)
    setModified(this.fd, modified)
    await new Promise<void>((resolve, reject) => {
      fsync(this.fd, (error) => (error ? reject(error) : resolve()))
    })
    this.#folder.rename(this.#name, this.#finalName)
    this.#close()
  }

  /** The copy broke off: what is worth it stays for the next one. */
  leave(): void {
    if (!this.#isOpen) return
    if (statusOf(this.fd).allocatedBytes < WORTH_KEEPING_BYTES) return this.discard()
    this.#close()
  }

  discard(): void {
    if (!this.#isOpen) return
    this.#folder.remove(this.#name)
    this.#close()
  }

  #close(): void {
    this.#isOpen = false
    closeSync(this.fd)
  }
}

/** A copy that ended between its last steps left permissions that may shut its own user out. */
function openOrRemove(folder: Folder, name: Uint8Array): number | undefined {
  try {
    return folder.openFile(name, constants.O_RDWR | constants.O_CREAT)
  } catch (error) {
    const errno = errnoOf(error)
    if ((errno !== "EACCES" && errno !== "ELOOP") || folder.status(name) === undefined) throw error
    folder.remove(name)
    return undefined
  }
}
