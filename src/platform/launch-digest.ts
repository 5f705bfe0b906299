/**
 * @module platform/launch-digest
 *
 * SHA-256 of what starts a VM: kernel, initrd, command line, QEMU itself and the firmware. SeaBIOS measures none of
 * them, so under it they rest on the manager's word.
 */

import { createReadStream } from "node:fs"
import { realpath, stat } from "node:fs/promises"
import { toHex, utf8 } from "../lib/bytes.ts"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { firmwareFiles, type QemuOptions } from "./qemu-args.ts"
import { requireFiles } from "./qemu.ts"

/** Lower-case hex SHA-256 digests. */
export interface LaunchDigests {
  kernel: string
  initrd: string
  /** Of the command line's UTF-8 bytes, without a terminator. */
  append: string
  qemu: string
  firmware: string
}

interface Entry {
  stamp: string
  digest: Promise<string>
}
const cache = new Map<string, Entry>()
const MAX_CACHED_FILES = 256

/** @throws MvmError `setup` or `not_found` as at a launch; `io` when a file cannot be read to its end. */
export async function hashLaunch(options: QemuOptions): Promise<LaunchDigests> {
  const program = requireFiles(options)
  const { code } = firmwareFiles(options.firmware, options.machine)
  const [kernel, initrd, qemu, firmware] = await Promise.all(
    [options.kernel, options.initrd, program, code].map(hashFile),
  )
  const append = new Bun.CryptoHasher("sha256").update(utf8(options.append)).digest("hex")
  return { kernel: kernel!, initrd: initrd!, append, qemu: qemu!, firmware: firmware! }
}

/** SHA-256 (hex) of a file, streamed; remembered while path, inode, size and times stay the same. */
export async function hashFile(path: string): Promise<string> {
  const file = await realpath(path).catch((error: unknown) => fail(path, error))
  const { ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true }).catch((error: unknown) =>
    fail(path, error),
  )
  const stamp = `${ino} ${size} ${mtimeNs} ${ctimeNs}`
  const known = cache.get(file)
  if (known?.stamp === stamp) return known.digest
  const digest = streamDigest(file)
  if (cache.size >= MAX_CACHED_FILES) cache.clear()
  cache.set(file, { stamp, digest })
  digest.catch(() => cache.delete(file))
  return digest
}

async function streamDigest(path: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256")
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
      hasher.update(chunk as Uint8Array)
  } catch (error) {
    return fail(path, error)
  }
  return toHex(new Uint8Array(hasher.digest()))
}

function fail(path: string, error: unknown): never {
  const errno = errnoOf(error)
  throw new MvmError(errno === "ENOENT" ? "not_found" : "io", `${path}: ${errno ?? "cannot be read"}`, {
    cause: error,
  })
}
