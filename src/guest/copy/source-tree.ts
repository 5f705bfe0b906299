/**
 * @module guest/copy/source-tree
 *
 * What there is to copy, in the order in which it is announced: depth first, the names of a folder by their bytes.
 * Links are never followed, so what a served folder shows lies inside it, whatever changes meanwhile.
 */

import { errnoOf, MvmError } from "../../lib/errors.ts"
import type { FileStatus, Folder } from "../../platform/folder.ts"
import { entryFailure } from "./entry-failure.ts"
import { checkName, isPartialName, joinPath, MAX_DEPTH, MAX_PATH_BYTES } from "./names.ts"

/** A folder held open while files of it may still be read. */
export class SourceFolder {
  readonly folder: Folder
  /** The receiver refused it: nothing below is worth announcing. */
  isRefused = false
  #holders = 1

  constructor(folder: Folder) {
    this.folder = folder
  }

  hold(): void {
    this.#holders += 1
  }

  release(): void {
    this.#holders -= 1
    if (this.#holders === 0) this.folder.close()
  }
}

/** Something to copy: an entry of a folder, or all that a folder holds; or what was asked for and is not there. */
export type Source =
  | {
      readonly folder: Folder
      /** Undefined: what is in the folder, not the folder. */
      readonly name: Uint8Array | undefined
    }
  | { readonly path: Uint8Array; readonly error: MvmError }

export interface Entry {
  readonly kind: "file" | "directory" | "symlink"
  readonly path: Uint8Array
  readonly name: Uint8Array
  readonly status: FileStatus
  /** Where it lies. */
  readonly parent: SourceFolder
  /** What it is, for a folder. */
  readonly self: SourceFolder | undefined
  /** Of a link. */
  readonly text: Uint8Array | undefined
}

export type Step =
  | { readonly step: "entry"; readonly entry: Entry }
  | { readonly step: "leave" }
  | { readonly step: "omitted"; readonly path: Uint8Array; readonly error: MvmError }

const NOTHING = new Uint8Array(0)

/** @param recursive without it, a folder is omitted and named */
export function* walk(sources: readonly Source[], recursive: boolean): Generator<Step, void> {
  for (const source of sources) {
    if ("error" in source) {
      yield { step: "omitted", ...source }
      continue
    }
    const { folder, name } = source
    const parent = new SourceFolder(folder.again())
    try {
      if (name !== undefined) yield* step(parent, NOTHING, name, { recursive, depth: 0 })
      else if (recursive) yield* inside(parent, NOTHING, { recursive, depth: 0 })
      else yield { step: "omitted", path: NOTHING, error: needsRecursive() }
    } finally {
      parent.release()
    }
  }
}

/** How many entries there are and how long their files, for a progress bar: the tree may change meanwhile. */
export function* measure(sources: readonly Source[], recursive: boolean): Generator<{ lengthBytes: number }> {
  for (const found of walk(sources, recursive)) {
    if (found.step !== "entry") continue
    yield { lengthBytes: found.entry.kind === "file" ? found.entry.status.lengthBytes : 0 }
  }
}

interface Place {
  readonly recursive: boolean
  readonly depth: number
}

function* inside(folder: SourceFolder, path: Uint8Array, place: Place): Generator<Step, void> {
  for (const name of folder.folder.names().sort(Buffer.compare)) {
    if (folder.isRefused) return
    yield* step(folder, path, name, place)
  }
}

function* step(
  parent: SourceFolder,
  under: Uint8Array,
  name: Uint8Array,
  place: Place,
): Generator<Step, void> {
  const path = joinPath(under, name)
  let entry: Entry
  try {
    if (isPartialName(name)) return
    entry = look(parent, path, name, place)
  } catch (error) {
    // What vanished between the listing and the look is not there.
    if (errnoOf(error) === "ENOENT" && place.depth > 0) return
    yield { step: "omitted", path, error: entryFailure(error) }
    return
  }
  try {
    yield { step: "entry", entry }
    if (!entry.self) return
    try {
      yield* inside(entry.self, path, { ...place, depth: place.depth + 1 })
    } catch (error) {
      yield { step: "omitted", path, error: entryFailure(error) }
    }
    yield { step: "leave" }
  } finally {
    entry.self?.release()
  }
}

function look(parent: SourceFolder, path: Uint8Array, name: Uint8Array, place: Place): Entry {
  checkName(name)
  if (path.length > MAX_PATH_BYTES) throw new MvmError("refused", "the path is too long")
  const status = parent.folder.status(name)
  if (!status) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" })
  const { kind } = status
  if (kind === "special") throw new MvmError("refused", "devices, fifos and sockets are not copied")
  const common = { path, name, status, parent }
  if (kind === "symlink") return { ...common, kind, self: undefined, text: parent.folder.readLink(name) }
  if (kind === "file") return { ...common, kind, self: undefined, text: undefined }
  if (!place.recursive) throw needsRecursive()
  if (place.depth >= MAX_DEPTH) throw new MvmError("refused", `more than ${MAX_DEPTH} folders deep`)
  return { ...common, kind, self: new SourceFolder(parent.folder.enter(name)), text: undefined }
}

function needsRecursive(): MvmError {
  return new MvmError("usage", "it is a folder", { hint: "-r copies folders" })
}
