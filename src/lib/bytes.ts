/**
 * @module lib/bytes
 *
 * Byte strings: hex, comparison, concatenation, and the two big-endian/little-endian readers every codec uses.
 * A reader never returns less than was asked for: running short is an error that names the field.
 */

import { timingSafeEqual } from "node:crypto"
import { MvmError, type ErrorCode } from "./errors.ts"

const encoder = new TextEncoder()
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

export function utf8(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Bytes as text. @throws TypeError on invalid UTF-8. */
export function fromUtf8(bytes: Uint8Array): string {
  return strictDecoder.decode(bytes)
}

export function toHex(bytes: Uint8Array): string {
  return bytes.toHex()
}

/** Lower- or upper-case hex to bytes. @throws SyntaxError on anything else. */
export function fromHex(hex: string): Uint8Array {
  return Uint8Array.fromHex(hex)
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let lengthBytes = 0
  for (const part of parts) lengthBytes += part.length
  const out = new Uint8Array(lengthBytes)
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

// Numbers in bytes are put and taken one byte at a time: a DataView makes the runtime give a short array a buffer of
// its own first, which costs more than all the rest of a message's coding.

/** `value` (0 to 2^16 - 1) at `at`, big-endian. */
export function putU16be(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 8
  into[at + 1] = value
}

/** `value` (0 to 2^32 - 1) at `at`, big-endian. */
export function putU32be(into: Uint8Array, at: number, value: number): void {
  putU16be(into, at, value >>> 16)
  putU16be(into, at + 2, value & 0xffff)
}

/** `value` (0 to 2^53 - 1) at `at`, as 64 bits, big-endian. */
export function putU64be(into: Uint8Array, at: number, value: number): void {
  putU32be(into, at, Math.floor(value / 2 ** 32))
  putU32be(into, at + 4, value >>> 0)
}

/** 0 to 2^16 - 1; the bytes must be there. */
export function getU16be(from: Uint8Array, at: number): number {
  return (from[at]! << 8) | from[at + 1]!
}

/** 0 to 2^32 - 1; the bytes must be there. */
export function getU32be(from: Uint8Array, at: number): number {
  return ((getU16be(from, at) << 16) | getU16be(from, at + 2)) >>> 0
}

/** Equality in time that depends on the lengths only. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

export function isZero(bytes: Uint8Array): boolean {
  let or = 0
  for (const byte of bytes) or |= byte
  return or === 0
}

/**
 * A cursor over untrusted bytes. Every read names its field, so that a short input is reported as
 * `"<structure>.<field>: ..."`.
 */
export class ByteReader {
  #at = 0
  readonly #bytes: Uint8Array
  readonly #structure: string
  readonly #code: ErrorCode

  constructor(bytes: Uint8Array, structure: string, code: ErrorCode) {
    this.#bytes = bytes
    this.#structure = structure
    this.#code = code
  }

  get offset(): number {
    return this.#at
  }

  get remaining(): number {
    return this.#bytes.length - this.#at
  }

  u8(field: string): number {
    return this.#bytes[this.#take(1, field)]!
  }

  u16be(field: string): number {
    return getU16be(this.#bytes, this.#take(2, field))
  }

  u32be(field: string): number {
    return getU32be(this.#bytes, this.#take(4, field))
  }

  u64be(field: string): bigint {
    const at = this.#take(8, field)
    return (BigInt(getU32be(this.#bytes, at)) << 32n) | BigInt(getU32be(this.#bytes, at + 4))
  }

  u16le(field: string): number {
    return this.#le16(this.#take(2, field))
  }

  u32le(field: string): number {
    return this.#le32(this.#take(4, field))
  }

  u64le(field: string): bigint {
    const at = this.#take(8, field)
    return (BigInt(this.#le32(at + 4)) << 32n) | BigInt(this.#le32(at))
  }

  /** A view (not a copy) of the next `lengthBytes` bytes. */
  bytes(lengthBytes: number, field: string): Uint8Array {
    const start = this.#take(lengthBytes, field)
    return this.#bytes.subarray(start, start + lengthBytes)
  }

  /** @throws MvmError when anything is left over. */
  end(): void {
    if (this.remaining !== 0) throw this.error("end", `${this.remaining} trailing bytes`)
  }

  error(field: string, problem: string): MvmError {
    return new MvmError(this.#code, `${this.#structure}.${field}: ${problem} (offset ${this.#at})`)
  }

  #le16(at: number): number {
    return this.#bytes[at]! | (this.#bytes[at + 1]! << 8)
  }

  #le32(at: number): number {
    return (this.#le16(at) | (this.#le16(at + 2) << 16)) >>> 0
  }

  #take(lengthBytes: number, field: string): number {
    const start = this.#at
    if (lengthBytes > this.remaining) {
      throw this.error(field, `needs ${lengthBytes} bytes, ${this.remaining} left`)
    }
    this.#at += lengthBytes
    return start
  }
}

const FIRST_BYTES = 64 * 1024

/** `bytes`, or a longer copy of them where they do not hold so much: twice as long, but not beyond `mostBytes`. */
export function grown(
  bytes: Uint8Array<ArrayBuffer>,
  neededBytes: number,
  mostBytes: number,
): Uint8Array<ArrayBuffer> {
  if (neededBytes <= bytes.length) return bytes
  const twice = Math.max(FIRST_BYTES, 2 * bytes.length)
  const longer = new Uint8Array(Math.max(neededBytes, Math.min(mostBytes, twice)))
  longer.set(bytes)
  return longer
}
