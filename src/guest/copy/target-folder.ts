/**
 * @module guest/copy/target-folder
 *
 * The folders that a copy fills, from the target folder down. Each is held open from the moment it is entered, so
 * that nobody can put another in its place, until everything below it is stored; only then it gets its permissions
 * and its time.
 */

import { closeSync, constants, fchmodSync } from "node:fs"
import { errnoOf, MvmError } from "../../lib/errors.ts"
import { Folder, sameTime, setModified, statusOf, tryLock } from "../../platform/folder.ts"
import { entryFailure } from "./entry-failure.ts"
import { isPartialName, joinPath, MAX_PATH_BYTES } from "./names.ts"
import type { FileAttributes } from "./partial.ts"
import type { Settling } from "./settling.ts"

const OWNER_ALL = 0o700
/** In the target folder itself, what other copies left is theirs to take up again, for so long. */
const FOREIGN_PARTIAL_MS = 7 * 86_400_000

export class TargetFolder {
  readonly path: Uint8Array
  readonly depth: number
  /** Whose partials are taken up here, as `partialNameOf` takes it. */
  readonly owner: Uint8Array | undefined
  readonly #folder: Folder | undefined
  readonly #parent: TargetFolder | undefined
  readonly #attributes: FileAttributes | undefined
  readonly #existed: boolean
  readonly #settling: Settling
  /** Whether names were made, replaced or removed in it. */
  #isChanged = false
  /** Files and folders below that are not stored yet. */
  #pending = 0
  #isLeft = false
  #settled = false

  private constructor(
    settling: Settling,
    folder: Folder | undefined,
    place: {
      path: Uint8Array
      existed: boolean
      owner: Uint8Array | undefined
      parent?: TargetFolder
      attributes?: FileAttributes
    },
  ) {
    const { path, existed, owner, parent, attributes } = place
    this.path = path
    this.owner = owner
    this.depth = parent ? parent.depth + 1 : 0
    this.#settling = settling
    this.#folder = folder
    this.#existed = existed
    this.#parent = parent
    this.#attributes = attributes
    if (parent) parent.#pending += 1
    if (parent && !existed) parent.#isChanged = true
  }

  /** @param folder the target; closed with everything else */
  static root(folder: Folder, settling: Settling, owner?: Uint8Array): TargetFolder {
    return new TargetFolder(settling, folder, { path: new Uint8Array(0), existed: true, owner })
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
    const place = { path, existed, owner: this.owner, parent: this, attributes }
    return { entered: new TargetFolder(this.#settling, folder, place), existed }
  }

  /** Stands for a folder that could not be entered while what lies below it is still announced. */
  enterRefused(): TargetFolder {
    const { path, owner } = this
    return new TargetFolder(this.#settling, undefined, { path, existed: true, owner, parent: this })
  }

  /** A file of this folder is wanted. */
  expect(): void {
    this.#pending += 1
    this.#isChanged = true
  }

  /** A name was made in it. */
  changed(): void {
    this.#isChanged = true
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
    if (!this.#folder) return this.#parent?.done()
    const finishing = this.#finish(this.#folder)
    this.#settling.add(finishing.then(() => this.#parent?.done()))
  }

  async #finish(folder: Folder): Promise<void> {
    try {
      removeLeftovers(folder, this.#parent === undefined)
      const isSet = this.#attributes !== undefined && setAttributes(folder, this.#attributes, this.#existed)
      if (this.#isChanged || isSet) await folder.synced()
    } finally {
      folder.close()
    }
  }
}

/**
 * Gives the folder its permissions and time. One of another user's, which was there before, keeps its own.
 *
 * @returns whether anything was changed
 */
function setAttributes(folder: Folder, { mode, modified }: FileAttributes, existed: boolean): boolean {
  const now = statusOf(folder.fd)
  if (now.mode === mode && sameTime(now.modified, modified)) return false
  try {
    fchmodSync(folder.fd, mode)
    setModified(folder.fd, modified)
    return true
  } catch (error) {
    if (existed && errnoOf(error) === "EPERM") return false
    throw entryFailure(error)
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
