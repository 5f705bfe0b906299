/**
 * @module cli/input
 *
 * Files that a command line names, and why one cannot be read in the operator's words.
 */

import { openSync, readFileSync } from "node:fs"
import { MvmError, errnoOf } from "../lib/errors.ts"

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
