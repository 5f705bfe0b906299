/**
 * @module guest/copy/target-folder
 *
 * The folders that a copy fills, from the target folder down. Each is held open from the moment it is entered, so
 * that nobody can put another in its place, until everything below it is stored; only then it gets its permissions
 * and its time.
 */

import { closeSync, constants, fchmodSync } from "node:fs"
import { errnoOf, MvmError } from "../../lib/errors.ts"
import { Folder, setModified, statusOf, tryLock } from "../../platform/folder.ts"
import { isPartialName, joinPath, MAX_PATH_BYTES } from "./names.ts"
import type { FileAttributes } from "./partial.ts"

const OWNER_ALL = 0o700
/** In the target folder itself, what other copies left is theirs to take up again, for so long. */
const FOREIGN_PARTIAL_MS = 7 * 86_400_000

export class TargetFolder {
  readonly path: Uint8Array
  readonly depth: number
  readonly #folder: Folder | undefined
  readonly #parent: TargetFolder | undefined
  readonly #attributes: FileAttributes | undefined
  /** Files and folders below that are not stored yet. */
  #pending = 0
  #isLeft = false
  #settled = false

  private constructor(
    place: { path: Uint8Array; depth: number },
    folder: Folder | undefined,
    parent?: TargetFolder,
    attributes?: FileAttributes,
  ) {
    this.path = place.path
    this.depth = place.depth
    this.#folder = folder
    this.#parent = parent
    this.#attributes = attributes
    if (parent) parent.#pending += 1
  }

  /** @param folder the target; closed with everything else */
  static root(folder: Folder): TargetFolder {
    return new TargetFolder({ path: new Uint8Array(0), depth: 0 }, folder)
  }

  /** Whether it was refused, and with it all that is announced below. */
  get isRefused(): boolean {
    return this.#folder === undefined
  }

  /** @throws MvmError `refused` below a folder that was refused. */
  get folder(): Folder {
    if (this.#folder) return this.#folder
    throw new MvmError("refused", "its folder was refused")
  }

  pathOf(name: Uint8Array): Uint8Array {
    return joinPath(this.path, name)
  }

  /**
   * Enters the folder `name`, which is made if it is not there.
   *
   * @returns whether it was there
   * @throws MvmError `refused`, and the system's errors: `ELOOP` and `ENOTDIR` where something else has the name
   */
  enter(name: Uint8Array, attributes: FileAttributes): { entered: TargetFolder; existed: boolean } {
    const path = this.pathOf(name)
    if (path.length > MAX_PATH_BYTES) throw new MvmError("refused", "the path is too long")
    const existed = !makeUnlessThere(this.folder, name)
    const folder = this.folder.enter(name)
    try {
      const { mode } = statusOf(folder.fd)
      if ((mode & OWNER_ALL) !== OWNER_ALL) fchmodSync(folder.fd, (mode & 0o777) | OWNER_ALL)
    } catch (error) {
      folder.close()
      throw error
    }
    return { entered: new TargetFolder({ path, depth: this.depth + 1 }, folder, this, attributes), existed }
  }

  /** Stands for a folder that could not be entered while what lies below it is still announced. */
  enterRefused(): TargetFolder {
    return new TargetFolder({ path: this.path, depth: this.depth + 1 }, undefined, this)
  }

  /** A file of this folder is wanted. */
  expect(): void {
    this.#pending += 1
  }

  /** It is stored, or will not be. */
  done(): void {
    this.#pending -= 1
    this.#settle()
  }

  /** Nothing more is announced in it. */
  leave(): void {
    this.#isLeft = true
    this.#settle()
  }

  /** The copy broke off: it and those around it are let go as they are. */
  abandonAll(): void {
    if (!this.#settled) this.#folder?.close()
    this.#settled = true
    this.#parent?.abandonAll()
  }

  #settle(): void {
    if (!this.#isLeft || this.#pending > 0 || this.#settled) return
    this.#settled = true
    if (this.#folder) finish(this.#folder, this.#attributes)
    this.#parent?.done()
  }
}

function finish(folder: Folder, attributes: FileAttributes | undefined): void {
  try {
    removeLeftovers(folder, attributes === undefined)
    if (attributes) {
      fchmodSync(folder.fd, attributes.mode)
      setModified(folder.fd, attributes.modified)
    }
    folder.sync()
  } finally {
    folder.close()
  }
}

/** What earlier copies began here and nobody asks for any more; what is locked is another copy's that runs. */
function removeLeftovers(folder: Folder, isRoot: boolean): void {
  for (const name of folder.names()) {
    if (!isPartialName(name)) continue
    try {
      const status = folder.status(name)
      const ageMs = Date.now() - (status?.modified.seconds ?? 0) * 1000
      if (isRoot && ageMs < FOREIGN_PARTIAL_MS) continue
      if (status?.kind === "symlink") folder.remove(name)
      else if (status?.kind === "file") removeUnlessLocked(folder, name)
    } catch {
      // It is hidden, and no part of what was copied.
    }
  }
}

function removeUnlessLocked(folder: Folder, name: Uint8Array): void {
  const fd = folder.openFile(name, constants.O_RDONLY)
  try {
    if (tryLock(fd)) folder.remove(name)
  } finally {
    closeSync(fd)
  }
}

/** @returns whether it was made */
function makeUnlessThere(folder: Folder, name: Uint8Array): boolean {
  try {
    folder.make(name, OWNER_ALL)
    return true
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return false
    throw error
  }
}
