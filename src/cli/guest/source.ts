/**
 * @module cli/guest/source
 *
 * What a command sends: standard input, or a file.
 */

import { closeSync, fstatSync } from "node:fs"
import type { Source } from "../../guest/input.ts"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { setPipeSize } from "../../platform/posix.ts"
import { openInput } from "../input.ts"

const PIPE_BYTES = 1 << 20

/** @param path undefined or `-`: standard input @throws MvmError `usage` */
export function openSource(path: string | undefined): Source & { totalBytes: number | undefined } {
  const fd = path === undefined || path === "-" ? 0 : openInput(path)
  try {
    const stat = fstatSync(fd)
    if (stat.isDirectory()) throw new MvmError("usage", `${path ?? "standard input"} is a directory`)
    const regular = stat.isFile()
    if (!regular) setPipeSize(fd, PIPE_BYTES)
    return { fd, regular, totalBytes: regular ? stat.size : undefined }
  } catch (error) {
    if (fd !== 0) closeSync(fd)
    if (errnoOf(error) === "EBADF") throw new MvmError("usage", "standard input is closed", { cause: error })
    throw error
  }
}
