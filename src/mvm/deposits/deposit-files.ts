/**
 * @module mvm/deposits/deposit-files
 *
 * The sealed records of deposits, a file each. A file gets its name only once all of it is on disk, and before there
 * is a row for it; what has no row when the MVM starts is what a death left, and goes.
 */

import {
  closeSync,
  constants,
  fsync,
  fsyncSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs"
import { join } from "node:path"
import { MvmError, errnoOf } from "../../lib/errors.ts"

const UNFINISHED = ".part"

export class DepositFiles {
  readonly #directory: string

  /** @throws MvmError `io` */
  constructor(directory: string) {
    this.#directory = directory
    attempt(directory, () => mkdirSync(directory, { recursive: true, mode: 0o700 }))
  }

  /** Removes whatever belongs to no deposit. @param isKnown of a key */
  sweep(isKnown: (key: string) => boolean): void {
    for (const name of readdirSync(this.#directory)) {
      if (!isKnown(name)) rmSync(join(this.#directory, name), { force: true, recursive: true })
    }
  }

  /** @throws MvmError `io`, `no_space` */
  begin(key: string): DepositFile {
    const path = join(this.#directory, key)
    const { O_WRONLY, O_CREAT, O_EXCL } = constants
    const fd = attempt(path, () => openSync(`${path}${UNFINISHED}`, O_WRONLY | O_CREAT | O_EXCL, 0o600))
    return new DepositFile(path, this.#directory, fd)
  }

  /** Up to `lengthBytes` bytes from `offset` on. @throws MvmError `io` when they are not there. */
  read(key: string, offset: number, lengthBytes: number): Uint8Array {
    const path = join(this.#directory, key)
    return attempt(path, () => {
      const fd = openSync(path, constants.O_RDONLY)
      try {
        const bytes = new Uint8Array(lengthBytes)
        return bytes.subarray(0, readSync(fd, bytes, 0, lengthBytes, offset))
      } finally {
        closeSync(fd)
      }
    })
  }

  remove(key: string): void {
    rmSync(join(this.#directory, key), { force: true })
  }
}

/** One that is being filled. */
export class DepositFile {
  readonly #path: string
  readonly #directory: string
  readonly #fd: number
  #isOpen = true

  constructor(path: string, directory: string, fd: number) {
    this.#path = path
    this.#directory = directory
    this.#fd = fd
  }

  /** @throws MvmError `io`, `no_space` */
  append(bytes: Uint8Array): void {
    attempt(this.#path, () => {
      for (let at = 0; at < bytes.length;) at += writeSync(this.#fd, bytes, at)
    })
  }

  /** It is whole: on disk, under its name. @throws MvmError `io`, `no_space`, `aborted` after {@link discard} */
  async commit(): Promise<void> {
    if (!this.#isOpen) throw new MvmError("aborted", "the deposit was dropped")
    await new Promise<void>((resolve, reject) => {
      fsync(this.#fd, (error) => (error ? reject(translated(this.#path, error)) : resolve()))
    })
    if (!this.#isOpen) throw new MvmError("aborted", "the deposit was dropped")
    attempt(this.#path, () => {
      renameSync(`${this.#path}${UNFINISHED}`, this.#path)
      const directory = openSync(this.#directory, constants.O_RDONLY)
      fsyncSync(directory)
      closeSync(directory)
    })
    this.#close()
  }

  /** Nothing of it stays, unless it was committed. */
  discard(): void {
    if (!this.#isOpen) return
    this.#close()
    rmSync(`${this.#path}${UNFINISHED}`, { force: true })
  }

  #close(): void {
    this.#isOpen = false
    closeSync(this.#fd)
  }
}

function attempt<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw translated(path, error)
  }
}

function translated(path: string, cause: unknown): MvmError {
  const errno = errnoOf(cause)
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return new MvmError("no_space", `${path}: the file system is full`, { cause })
  }
  return new MvmError("io", `${path}: ${errno ?? "failed"}`, { cause })
}
