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
import { firmwareFiles, type Machine, type QemuOptions } from "./qemu-args.ts"
import { requireFiles } from "./qemu.ts"

/** What a VM is started with. Absolute paths. */
export interface LaunchFiles {
  readonly qemu: string
  readonly firmware: string
  /** Undefined where the firmware starts what is on a disk; so are initrd and command line. */
  readonly kernel?: string | undefined
  readonly initrd?: string | undefined
  /** The kernel's whole command line. */
  readonly append?: string | undefined
  /** Undefined where it is not known. */
  readonly machine?: Machine | undefined
  readonly memoryBytes?: number | undefined
}

/** Lower-case hex SHA-256 digests of those files that there are. */
export interface LaunchDigests {
  qemu: string
  firmware: string
  kernel?: string | undefined
  initrd?: string | undefined
  /** Of the command line's UTF-8 bytes, without a terminator. */
  append?: string | undefined
}

interface Entry {
  stamp: string
  digest: Promise<string>
}
const cache = new Map<string, Entry>()
const MAX_CACHED_FILES = 256

/** What {@link QemuOptions} start. @throws MvmError `setup` or `not_found` as at a launch. */
export function launchFilesOf(options: QemuOptions): LaunchFiles {
  return {
    qemu: requireFiles(options),
    firmware: firmwareFiles(options.firmware, options.machine).code,
    kernel: options.kernel,
    initrd: options.initrd,
    append: options.append,
    machine: options.machine,
    memoryBytes: options.memoryMiB * 2 ** 20,
  }
}

/** @throws MvmError `not_found`; `io` when a file cannot be read to its end. */
export async function hashLaunch(files: LaunchFiles): Promise<LaunchDigests> {
  const ofFile = async (path: string | undefined): Promise<string | undefined> => path && hashFile(path)
  const [qemu, firmware, kernel, initrd] = await Promise.all([
    hashFile(files.qemu),
    hashFile(files.firmware),
    ofFile(files.kernel),
    ofFile(files.initrd),
  ])
  const append =
    files.append === undefined
      ? undefined
      : new Bun.CryptoHasher("sha256").update(utf8(files.append)).digest("hex")
  return { qemu, firmware, kernel, initrd, append }
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
