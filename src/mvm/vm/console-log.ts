/**
 * @module mvm/vm/console-log
 *
 * The file a VM's serial console is copied to. Its writer is the guest, so it is bounded: QEMU appends, and past the
 * bound the file is emptied down to its newest part.
 */

import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs"
import { asMvmError, errnoOf } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"

const MAX_BYTES = 8 * 1024 * 1024
const KEPT_BYTES = 1024 * 1024

/** Between two looks at its length. */
const PERIOD_MS = 2000

/** Keeps the file at `path` short from now on; returns what stops that. */
export function keepConsoleLogShort(path: string, log: Log): () => void {
  const timer = setInterval(() => {
    try {
      boundConsoleLog(path)
    } catch (error) {
      log.warn("console_log", { message: asMvmError(error).message })
    }
  }, PERIOD_MS)
  timer.unref()
  return () => clearInterval(timer)
}

/** Shortens the file at `path` when it has grown too long; one that is not there is short enough. */
export function boundConsoleLog(path: string, maxBytes = MAX_BYTES, keptBytes = KEPT_BYTES): void {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW)
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return
    throw error
  }
  try {
    const { size } = fstatSync(fd)
    if (size <= maxBytes) return
    const kept = new Uint8Array(keptBytes)
    const got = readSync(fd, kept, 0, keptBytes, size - keptBytes)
    ftruncateSync(fd, 0)
    writeSync(fd, kept, 0, got)
  } finally {
    closeSync(fd)
  }
}
