/**
 * @module cli/input
 *
 * Files that a command line names, and why one cannot be read in the operator's words.
 */

import { closeSync, openSync, readFileSync, readSync } from "node:fs"
import { MvmError, errnoOf } from "../lib/errors.ts"

const BLOCK_BYTES = 1 << 20

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "permission denied",
  EISDIR: "it is a directory",
  ENOTDIR: "a part of the path is no directory",
  ELOOP: "too many symbolic links",
}

/** The whole file as text. @throws MvmError `usage` */
export function readInput(path: string): string {
  return reading(path, () => readFileSync(path, "utf8"))
}

/** The whole file. @throws MvmError `usage` */
export function readInputBytes(path: string): Uint8Array {
  return reading(path, () => new Uint8Array(readFileSync(path)))
}

/** Its lines one after another, without their ends, however long the file is. @throws MvmError `usage` */
export function* readLines(path: string): Generator<string> {
  const fd = openInput(path)
  try {
    const buffer = new Uint8Array(BLOCK_BYTES)
    const decoder = new TextDecoder()
    let rest = ""
    for (;;) {
      const got = reading(path, () => readSync(fd, buffer, 0, buffer.length, null))
      const lines = (rest + decoder.decode(buffer.subarray(0, got), { stream: got > 0 })).split("\n")
      rest = lines.pop() ?? ""
      yield* lines
      if (got === 0) break
    }
    if (rest !== "") yield rest
  } finally {
    closeSync(fd)
  }
}

/** A descriptor to read from. @throws MvmError `usage` */
export function openInput(path: string): number {
  return reading(path, () => openSync(path, "r"))
}

function reading<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    const errno = errnoOf(cause) ?? "failed"
    throw new MvmError("usage", `cannot read ${path}: ${REASONS[errno] ?? errno}`, { cause })
  }
}
