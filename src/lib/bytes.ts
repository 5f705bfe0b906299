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
  readonly #view: DataView
  readonly #structure: string
  readonly #code: ErrorCode

  constructor(bytes: Uint8Array, structure: string, code: ErrorCode) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
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
    return this.#view.getUint8(this.#take(1, field))
  }

  u16be(field: string): number {
    return this.#view.getUint16(this.#take(2, field))
  }

  u32be(field: string): number {
    return this.#view.getUint32(this.#take(4, field))
  }

  u64be(field: string): bigint {
    return this.#view.getBigUint64(this.#take(8, field))
  }

  u16le(field: string): number {
    return this.#view.getUint16(this.#take(2, field), true)
  }

  u32le(field: string): number {
    return this.#view.getUint32(this.#take(4, field), true)
  }

  u64le(field: string): bigint {
    return this.#view.getBigUint64(this.#take(8, field), true)
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

  #take(lengthBytes: number, field: string): number {
    const start = this.#at
    if (lengthBytes > this.remaining) {
      throw this.error(field, `needs ${lengthBytes} bytes, ${this.remaining} left`)
    }
    this.#at += lengthBytes
    return start
  }
}
