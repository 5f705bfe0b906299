/**
 * @module wire/msgpack-scan
 *
 * The check of hostile bytes before msgpackr reads them. msgpackr by itself also takes records, dates, sets and
 * other extensions, floats, integer and repeated keys, longer forms than needed, and any depth.
 *
 * @spec https://github.com/msgpack/msgpack/blob/master/spec.md
 */

import { fromUtf8 } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"

/** Greatest length of a map key, so that every key is a `fixstr`. */
export const MAX_KEY_BYTES = 31

const UINT32_MAX = 0xffff_ffff
const INT32_MIN = -0x8000_0000

/**
 * Refuses anything but one value of the subset in its shortest form, nested at most `maxDepth` deep, and nothing
 * after it.
 *
 * Trust: `bytes` is hostile. Time is linear, nothing is allocated, each length is checked against the bytes left.
 *
 * @throws MvmError `protocol`.
 */
export function scanCanonical(bytes: Uint8Array, maxDepth: number): void {
  const end = scanValue(bytes, 0, maxDepth)
  if (end !== bytes.length) throw malformed(end, `${bytes.length - end} trailing bytes`)
}

/** Checks the value at `at` and returns the offset after it. */
function scanValue(bytes: Uint8Array, at: number, depth: number): number {
  const token = bytes[at]
  if (token === undefined) throw malformed(at, "ends inside a value")
  if (token < 0x80 || token >= 0xe0) return at + 1
  if (token < 0x90) return scanMap(bytes, at, at + 1, token & 0x0f, depth)
  if (token < 0xa0) return scanArray(bytes, at, at + 1, token & 0x0f, depth)
  if (token < 0xc0) return scanText(bytes, at, at + 1, token & 0x1f)
  switch (token) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return at + 1
    case 0xc4:
      return scanBytes(bytes, at, at + 2, uint(bytes, at, 1, 0))
    case 0xc5:
      return scanBytes(bytes, at, at + 3, uint(bytes, at, 2, 0x100))
    case 0xc6:
      return scanBytes(bytes, at, at + 5, uint(bytes, at, 4, 0x1_0000))
    case 0xcc:
      uint(bytes, at, 1, 0x80)
      return at + 2
    case 0xcd:
      uint(bytes, at, 2, 0x100)
      return at + 3
    case 0xce:
      uint(bytes, at, 4, 0x1_0000)
      return at + 5
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
      return scanSigned(bytes, at, 1 << (token - 0xd0))
    case 0xd9:
      return scanText(bytes, at, at + 2, uint(bytes, at, 1, 0x20))
    case 0xda:
      return scanText(bytes, at, at + 3, uint(bytes, at, 2, 0x100))
    case 0xdb:
      return scanText(bytes, at, at + 5, uint(bytes, at, 4, 0x1_0000))
    case 0xdc:
      return scanArray(bytes, at, at + 3, uint(bytes, at, 2, 0x10), depth)
    case 0xdd:
      return scanArray(bytes, at, at + 5, uint(bytes, at, 4, 0x1_0000), depth)
    case 0xde:
      return scanMap(bytes, at, at + 3, uint(bytes, at, 2, 0x10), depth)
    case 0xdf:
      return scanMap(bytes, at, at + 5, uint(bytes, at, 4, 0x1_0000), depth)
    default:
      throw malformed(at, "a type that is not admitted")
  }
}

function scanArray(bytes: Uint8Array, at: number, first: number, count: number, depth: number): number {
  if (depth === 0) throw malformed(at, "nested too deep")
  if (count > bytes.length - first) throw malformed(at, "more elements than bytes")
  let next = first
  for (let i = 0; i < count; i++) next = scanValue(bytes, next, depth - 1)
  return next
}

/** Strictly ascending keys: this also finds duplicates, without a table of those seen. */
function scanMap(bytes: Uint8Array, at: number, first: number, count: number, depth: number): number {
  if (depth === 0) throw malformed(at, "nested too deep")
  if (count > (bytes.length - first) / 2) throw malformed(at, "more entries than bytes")
  let next = first
  let previousKey = -1
  for (let i = 0; i < count; i++) {
    const key = next
    next = scanKey(bytes, key)
    if (previousKey >= 0 && !keyFollows(bytes, previousKey, key)) throw malformed(key, "keys not ascending")
    previousKey = key
    next = scanValue(bytes, next, depth - 1)
  }
  return next
}

function scanKey(bytes: Uint8Array, at: number): number {
  const token = bytes[at] ?? 0
  if (token <= 0xa0 || token > 0xbf) throw malformed(at, "a map key that is no field name")
  const end = at + 1 + (token & 0x1f)
  if (end > bytes.length) throw malformed(at, "ends inside a map key")
  for (let i = at + 1; i < end; i++) {
    const byte = bytes[i]!
    const letter = (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a
    const digit = byte >= 0x30 && byte <= 0x39 && i > at + 1
    if (!letter && !digit) throw malformed(at, "a map key that is no field name")
  }
  return end
}

/** Whether the key at `b` comes after the one at `a`, both scanned already. */
function keyFollows(bytes: Uint8Array, a: number, b: number): boolean {
  const lengthA = bytes[a]! & 0x1f
  const lengthB = bytes[b]! & 0x1f
  for (let i = 1; i <= Math.min(lengthA, lengthB); i++) {
    if (bytes[a + i] !== bytes[b + i]) return bytes[a + i]! < bytes[b + i]!
  }
  return lengthA < lengthB
}

function scanBytes(bytes: Uint8Array, at: number, first: number, lengthBytes: number): number {
  if (lengthBytes > bytes.length - first) throw malformed(at, "longer than the bytes left")
  return first + lengthBytes
}

function scanText(bytes: Uint8Array, at: number, first: number, lengthBytes: number): number {
  const end = scanBytes(bytes, at, first, lengthBytes)
  for (let i = first; i < end; i++) {
    if (bytes[i]! < 0x80) continue
    checkUtf8(bytes.subarray(first, end), at)
    break
  }
  return end
}

function checkUtf8(text: Uint8Array, at: number): void {
  try {
    fromUtf8(text)
  } catch (cause) {
    throw malformed(at, "text that is not UTF-8", cause)
  }
}

/** The big-endian number after the token, at least `least`, below which a shorter form exists. */
function uint(bytes: Uint8Array, at: number, lengthBytes: number, least: number): number {
  if (lengthBytes > bytes.length - at - 1) throw malformed(at, "ends inside a number")
  let value = 0
  for (let i = 1; i <= lengthBytes; i++) value = value * 256 + bytes[at + i]!
  if (value < least) throw malformed(at, "not the shortest form")
  return value
}

function scanSigned(bytes: Uint8Array, at: number, lengthBytes: number): number {
  // Above 2^53 the sum rounds, but never back into the safe range.
  const unsigned = uint(bytes, at, lengthBytes, 0)
  const value = bytes[at + 1]! < 0x80 ? unsigned : -complement(bytes, at, lengthBytes) - 1
  const least = lengthBytes === 1 ? -0x20 : -(2 ** (lengthBytes * 4 - 1))
  const shorter = lengthBytes === 8 ? value >= INT32_MIN && value <= UINT32_MAX : value >= least
  if (shorter) throw malformed(at, "not the shortest form")
  if (!Number.isSafeInteger(value)) throw malformed(at, "an integer beyond 2^53 - 1")
  return at + 1 + lengthBytes
}

function complement(bytes: Uint8Array, at: number, lengthBytes: number): number {
  let value = 0
  for (let i = 1; i <= lengthBytes; i++) value = value * 256 + (bytes[at + i]! ^ 0xff)
  return value
}

function malformed(at: number, problem: string, cause?: unknown): MvmError {
  return new MvmError("protocol", `msgpack: ${problem} (offset ${at})`, { cause })
}
