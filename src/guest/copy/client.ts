/**
 * @module guest/copy/client
 *
 * The end of a copy that asks: puts files of its own into a folder that is served, or takes some from there.
 */

import { basename, dirname } from "node:path"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { utf8 } from "../../lib/bytes.ts"
import { Folder } from "../../platform/folder.ts"
import type { ByteDuplex } from "../streams/byte-duplex.ts"
import type { Limits } from "./limits.ts"
import { COPY_VERSION } from "./messages.ts"
import type { LinkPolicy } from "./names.ts"
import { Receiver } from "./receiver.ts"
import { Sender } from "./sender.ts"
import type { Source } from "./source-tree.ts"
import type { CopyObserver, Tally } from "./tally.ts"

export interface CopyOptions {
  readonly recursive: boolean
  readonly checksum: boolean
  /** Count first what there is to do. */
  readonly totals: boolean
  readonly observer: CopyObserver
}

/** Files of this machine, held open from the moment they were named. */
export interface LocalSources {
  readonly sources: readonly Source[]
  close(): void
}

/**
 * Looks up what a command line names. A link is copied as a link; a path that ends in `.` or `..` means what is in
 * that folder.
 *
 * @throws MvmError `usage` for what is not there
 */
export function localSources(paths: readonly string[]): LocalSources {
  const sources: { folder: Folder; name: Uint8Array | undefined }[] = []
  const close = (): void => {
    for (const { folder } of sources) folder.close()
  }
  try {
    for (const path of paths) sources.push(localSource(path))
    return { sources, close }
  } catch (error) {
    close()
    throw error
  }
}

/**
 * Puts `sources` into the folder `target`, which is made if need be, of what is served at the other end.
 *
 * @throws MvmError as either end says; what single entries failed of is in the tally
 */
export async function pushFiles(
  stream: ByteDuplex,
  { sources }: LocalSources,
  target: string,
  options: CopyOptions,
): Promise<Tally> {
  const { recursive, checksum, totals, observer } = options
  const request = {
    version: COPY_VERSION,
    direction: "push",
    paths: [utf8(target)],
    recursive,
    checksum,
    totals,
  } as const
  return new Sender(stream, sources, { recursive, totals, observer, request }).run()
}

export interface PullOptions extends CopyOptions {
  readonly limits: Limits
  readonly links: LinkPolicy
}

/**
 * Takes `paths` of what is served at the other end into the folder `target` of this machine.
 *
 * @throws MvmError `usage` where that is no folder; otherwise as {@link pushFiles}
 */
export async function pullFiles(
  stream: ByteDuplex,
  paths: readonly string[],
  target: string,
  options: PullOptions,
): Promise<Tally> {
  const folder = opening(target, () => Folder.open(target))
  const { recursive, checksum, totals, observer, limits, links } = options
  const request = {
    version: COPY_VERSION,
    direction: "pull",
    paths: paths.map(utf8),
    recursive,
    checksum,
    totals,
  } as const
  const receiver = new Receiver(stream, folder, { limits, links, checksum, reveals: true, observer, request })
  return receiver.run()
}

function localSource(path: string): { folder: Folder; name: Uint8Array | undefined } {
  const name = basename(path)
  if (name === "" || name === "." || name === "..") {
    return { folder: opening(path, () => Folder.open(path)), name: undefined }
  }
  const folder = opening(path, () => Folder.open(dirname(path)))
  if (opening(path, () => folder.status(utf8(name)))) return { folder, name: utf8(name) }
  folder.close()
  throw new MvmError("usage", `${path}: no such file or folder`)
}

function opening<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw new MvmError("usage", `${path}: ${REASONS[errnoOf(cause) ?? ""] ?? "cannot be opened"}`, { cause })
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  ENOTDIR: "it is no folder",
  EACCES: "permission denied",
}
