/**
 * @module mvm/reference/walk
 *
 * Reference values from a directory tree, such as a mounted image, without running anything of it. Names are bytes
 * and may be hostile; nothing outside the tree is read: symbolic links are not followed, and devices, sockets and
 * pipes are left out. IMA logs the place a file really has, so links need no entry of their own.
 */

import { constants } from "node:fs"
import { lstat, open, readdir, type FileHandle } from "node:fs/promises"
import { concat, utf8 } from "../../lib/bytes.ts"
import { Sha256 } from "../../lib/crypto.ts"
import { MvmError, asMvmError, errnoOf } from "../../lib/errors.ts"
import { kernelPathText } from "../../tcb/measurement/measured-path.ts"
import { canBecomeCode } from "./code.ts"

const READ_BYTES = 1024 * 1024
const MAX_FILES = 1_000_000
const MAX_DEPTH = 128

export interface WalkOptions {
  /** All regular files; otherwise those that can be executed, mapped executable or loaded into the kernel. */
  readonly all?: boolean
  readonly signal?: AbortSignal
}

/**
 * The files under `root` by path as IMA would log them with `root` as `/`, each with its digest.
 *
 * @throws MvmError `io` naming the path that cannot be read, `too_large` past a million files, `interrupted`
 */
export async function walkReference(
  root: string,
  options: WalkOptions = {},
): Promise<Map<string, Set<string>>> {
  const files = new Map<string, Set<string>>()
  const rootBytes = Buffer.from(root.replace(/\/+$/, "") || "/")
  const buffer = new Uint8Array(READ_BYTES)
  const queue: { directory: Buffer; depth: number }[] = [{ directory: rootBytes, depth: 0 }]
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const { directory, depth } = next
    if (depth > MAX_DEPTH)
      throw new MvmError("too_large", `${shown(directory)}: deeper than ${MAX_DEPTH} levels`)
    for await (const { path, kind } of list(directory)) {
      if (options.signal?.aborted) throw new MvmError("interrupted", "the walk was interrupted")
      if (kind === "directory") queue.push({ directory: path, depth: depth + 1 })
      if (kind !== "file") continue
      const inside = path.subarray(rootBytes.length === 1 ? 1 : rootBytes.length)
      const hex = await digestOf(path, kernelPathText(inside), { ...options, buffer })
      if (hex === undefined) continue
      if (files.size >= MAX_FILES) throw new MvmError("too_large", `${root}: more than ${MAX_FILES} files`)
      const key = kernelPathText(inside)
      files.set(key, (files.get(key) ?? new Set()).add(hex))
    }
  }
  return files
}

interface Listed {
  readonly path: Buffer
  readonly kind: "file" | "directory" | "other"
}

async function* list(directory: Buffer): AsyncGenerator<Listed> {
  // Names as bytes: a file name need not be UTF-8.
  const names = await attempt(directory, () => readdir(directory, { encoding: "buffer" }))
  for (const name of names) {
    const path = Buffer.from(concat(directory, utf8("/"), name))
    const stat = await attempt(path, () => lstat(path))
    yield { path, kind: stat.isFile() ? "file" : stat.isDirectory() ? "directory" : "other" }
  }
}

/** Lower-case hex, or undefined for a file that cannot become code. */
async function digestOf(
  path: Buffer,
  text: string,
  { all = false, buffer }: WalkOptions & { buffer: Uint8Array },
): Promise<string | undefined> {
  let file: FileHandle | undefined
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const { mode } = await file.stat()
    const hash = new Sha256()
    for (let first = true; ; first = false) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null)
      const part = buffer.subarray(0, bytesRead)
      if (first && !all && !canBecomeCode(text, mode, part)) return undefined
      if (bytesRead === 0) return hash.digest().toHex()
      hash.update(part)
    }
  } catch (error) {
    throw unreadable(path, error)
  } finally {
    await file?.close()
  }
}

function shown(path: Buffer): string {
  return kernelPathText(path)
}

async function attempt<T>(path: Buffer, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw unreadable(path, error)
  }
}

function unreadable(path: Buffer, error: unknown): MvmError {
  const reason = errnoOf(error) ?? "read failed"
  return new MvmError("io", `cannot read ${shown(path)}: ${reason}`, { cause: asMvmError(error) })
}
