/**
 * @module mvm/reference/cpio
 *
 * Reference values from an initramfs image, without unpacking or running anything of it: cpio archives of the "newc"
 * kind, one after another, each as it is or compressed with gzip or zstd, with zeros between them, as the kernel
 * takes them. A file that is in several counts with its last content.
 *
 * Not here: other compressions, archives with checksums ("crc") other than to skip over, hard links without content.
 *
 * @spec Linux Documentation/driver-api/early-userspace/buffer-format.rst
 */

import { gunzipSync, zstdDecompressSync } from "node:zlib"
import { utf8 } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { kernelPathText } from "../../tcb/measurement/measured-path.ts"
import { canBecomeCode } from "./code.ts"

// Specification.
const HEADER_BYTES = 110
const FIELDS = 13
const FIELD_CHARACTERS = 8
const MODE = 1
const FILE_SIZE = 6
const NAME_SIZE = 11
const MAGICS = new Set(["070701", "070702"])
const TRAILER = "TRAILER!!!"
const TYPE_MASK = 0o170000
const REGULAR = 0o100000

// Implementation.
const MAX_NAME_BYTES = 4096
const MAX_FILES = 1_000_000
const MAX_IMAGE_BYTES = 768 * 1024 ** 2
const GZIP = Uint8Array.of(0x1f, 0x8b)
const ZSTD = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd)

export interface CpioOptions {
  /** All regular files; otherwise those that can be executed, mapped executable or loaded into the kernel. */
  readonly all?: boolean
}

/**
 * The files of an image by path as IMA would log them, each with its digest.
 *
 * @throws MvmError `config` with the offset of what is malformed, `too_large`
 */
export function cpioReference(
  image: Uint8Array,
  { all = false }: CpioOptions = {},
): Map<string, Set<string>> {
  const files = new Map<string, Set<string>>()
  let at = 0
  while (at < image.length) {
    if (image[at] === 0) at += 1
    else if (startsWith(image, at, GZIP) || startsWith(image, at, ZSTD)) {
      readArchives(unpacked(image.subarray(at), at), all, files)
      // The runtime does not say where compressed data ends, so nothing behind it can be read.
      at = image.length
    } else at = readArchive(image, at, all, files)
  }
  if (files.size === 0) throw malformed(0, "no file in it can become code")
  return files
}

function readArchives(bytes: Uint8Array, all: boolean, files: Map<string, Set<string>>): void {
  for (let at = 0; at < bytes.length;) {
    if (bytes[at] === 0) at += 1
    else at = readArchive(bytes, at, all, files)
  }
}

/** @returns the offset behind the trailer */
function readArchive(
  bytes: Uint8Array,
  start: number,
  all: boolean,
  files: Map<string, Set<string>>,
): number {
  let at = start
  for (;;) {
    const { mode, nameBytes, fileBytes, nameAt } = readHeader(bytes, at)
    const contentAt = aligned(nameAt + nameBytes, start)
    const end = contentAt + fileBytes
    if (end > bytes.length) throw malformed(at, "ends within a file")
    const name = bytes.subarray(nameAt, nameAt + nameBytes - 1)
    if (bytes[nameAt + nameBytes - 1] !== 0 || name.includes(0))
      throw malformed(at, "name: not one nul at its end")
    at = Math.min(aligned(end, start), bytes.length)
    if (sameText(name, TRAILER)) return at
    if ((mode & TYPE_MASK) !== REGULAR) continue
    const content = bytes.subarray(contentAt, end)
    const path = kernelPathText(absolute(name))
    if (!all && !canBecomeCode(path, mode, content)) continue
    if (files.size >= MAX_FILES) throw new MvmError("too_large", `image: more than ${MAX_FILES} files`)
    files.set(path, new Set([sha256(content).toHex()]))
  }
}

function readHeader(
  bytes: Uint8Array,
  at: number,
): { mode: number; nameBytes: number; fileBytes: number; nameAt: number } {
  if (at + HEADER_BYTES > bytes.length) throw malformed(at, "ends within a header, and no trailer was seen")
  const text = String.fromCharCode(...bytes.subarray(at, at + HEADER_BYTES))
  if (!MAGICS.has(text.slice(0, 6))) throw malformed(at, "neither a newc archive, gzip nor zstd")
  const fields: number[] = []
  for (let i = 0; i < FIELDS; i += 1) {
    const field = text.slice(6 + i * FIELD_CHARACTERS, 6 + (i + 1) * FIELD_CHARACTERS)
    if (!/^[0-9a-fA-F]{8}$/.test(field)) throw malformed(at, `header field ${i + 1}: not hexadecimal`)
    fields.push(Number.parseInt(field, 16))
  }
  const nameBytes = fields[NAME_SIZE]!
  if (nameBytes < 2 || nameBytes > MAX_NAME_BYTES) throw malformed(at, `name: ${nameBytes} bytes`)
  const nameAt = at + HEADER_BYTES
  if (nameAt + nameBytes > bytes.length) throw malformed(at, "ends within a name")
  return { mode: fields[MODE]!, nameBytes, fileBytes: fields[FILE_SIZE]!, nameAt }
}

function unpacked(bytes: Uint8Array, at: number): Uint8Array {
  // Ends where the bound is passed: a few kilobytes can unpack to any length.
  const bound = { maxOutputLength: MAX_IMAGE_BYTES }
  try {
    return startsWith(bytes, 0, GZIP) ? gunzipSync(bytes, bound) : zstdDecompressSync(bytes, bound)
  } catch (cause) {
    if ((cause as { code?: unknown }).code === "ERR_BUFFER_TOO_LARGE") {
      throw new MvmError("too_large", `image: more than ${MAX_IMAGE_BYTES} bytes unpacked`, { cause })
    }
    throw new MvmError("config", `image at ${at}: cannot be unpacked`, { cause })
  }
}

/** "./usr/bin/x" and "usr/bin/x" are "/usr/bin/x". */
function absolute(name: Uint8Array): Uint8Array {
  let from = 0
  while (name[from] === 0x2f || (name[from] === 0x2e && name[from + 1] === 0x2f)) from += 1
  const out = new Uint8Array(1 + name.length - from)
  out[0] = 0x2f
  out.set(name.subarray(from), 1)
  return out
}

function aligned(offset: number, start: number): number {
  return start + Math.ceil((offset - start) / 4) * 4
}

function sameText(bytes: Uint8Array, text: string): boolean {
  return bytes.length === text.length && startsWith(bytes, 0, utf8(text))
}

function startsWith(bytes: Uint8Array, at: number, prefix: Uint8Array): boolean {
  return prefix.every((byte, i) => bytes[at + i] === byte)
}

function malformed(offset: number, problem: string): MvmError {
  return new MvmError("config", `image at ${offset}: ${problem}`, {
    hint: "nothing was imported, the values in force stay in force",
  })
}
