/**
 * @module guest/copy/entry-failure
 *
 * Which failures cost one entry while the others go on, and which end the copy. Both ends read the words, so they
 * name nothing of this machine but the reason.
 */

import { MvmError, errnoOf, type ErrorCode } from "../../lib/errors.ts"

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOENT: "no such file or folder",
  ELOOP: "a symbolic link is in its place",
  ENOTDIR: "something else than a folder is in its place",
  EISDIR: "a folder is in its place",
  EEXIST: "something else is in its place",
  EROFS: "the file system is read-only",
  EFBIG: "it is too large for the file system",
  ENAMETOOLONG: "its name is too long for the file system",
  ETXTBSY: "it is being executed",
}

const COSTS_ONE = new Set<ErrorCode>(["refused", "busy", "io", "usage"])

/**
 * Why an entry is not copied.
 *
 * @throws `error` itself, or `no_space` for a full disk, where the copy cannot go on
 */
export function entryFailure(error: unknown): MvmError {
  if (error instanceof MvmError) {
    if (COSTS_ONE.has(error.code)) return error
    throw error
  }
  const errno = errnoOf(error)
  if (errno === undefined) throw error
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    throw new MvmError("no_space", "the receiver's disk is full", { cause: error })
  }
  return new MvmError("io", REASONS[errno] ?? errno, { cause: error })
}
