/**
 * @module tpm/marshal
 *
 * Big-endian marshalling as in TPM 2.0 Part 2: a writer, and the helpers every decoder shares. Reading is
 * {@link ByteReader}'s; a decoder of a whole message ends with `end()`, so nothing trails.
 */

import { ByteReader, concat, putU16be, putU32be } from "../lib/bytes.ts"

/** Appends big-endian integers and byte strings. Every method returns the writer. */
export class TpmWriter {
  readonly #parts: Uint8Array[] = []

  u8(value: number): this {
    return this.#integer(value, 1)
  }

  u16(value: number): this {
    return this.#integer(value, 2)
  }

  u32(value: number): this {
    return this.#integer(value, 4)
  }

  bytes(value: Uint8Array): this {
    this.#parts.push(value)
    return this
  }

  /** A TPM2B: 16-bit length and the bytes. */
  tpm2b(value: Uint8Array): this {
    return this.u16(value.length).bytes(value)
  }

  /** Everything written so far, as one array. */
  done(): Uint8Array {
    return concat(...this.#parts)
  }

  #integer(value: number, lengthBytes: 1 | 2 | 4): this {
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * lengthBytes)) {
      throw new RangeError(`${value} does not fit ${lengthBytes} bytes`)
    }
    const out = new Uint8Array(lengthBytes)
    if (lengthBytes === 1) out[0] = value
    else if (lengthBytes === 2) putU16be(out, 0, value)
    else putU32be(out, 0, value)
    return this.bytes(out)
  }
}

/** A copy of a TPM2B's bytes. @throws MvmError `tpm` when it is longer than `maxBytes`. */
export function readTpm2b(reader: ByteReader, field: string, maxBytes: number): Uint8Array {
  const lengthBytes = reader.u16be(`${field}.size`)
  if (lengthBytes > maxBytes) {
    throw reader.error(`${field}.size`, `${lengthBytes} bytes, at most ${maxBytes} allowed`)
  }
  return reader.bytes(lengthBytes, field).slice()
}

/** A count that the structure bounds. @throws MvmError `tpm` when it is above `max`. */
export function readCount(reader: ByteReader, field: string, max: number): number {
  const count = reader.u32be(field)
  if (count > max) throw reader.error(field, `${count} entries, at most ${max} allowed`)
  return count
}

/** A field with one allowed value. @throws MvmError `tpm` naming both when it is another. */
export function expectU16(reader: ByteReader, field: string, expected: number): void {
  const value = reader.u16be(field)
  if (value !== expected) {
    throw reader.error(field, `0x${value.toString(16)} where 0x${expected.toString(16)} is expected`)
  }
}

/** Decodes `bytes` as exactly one `structure`. @throws MvmError `tpm` on anything short, trailing or unknown. */
export function decodeWhole<T>(bytes: Uint8Array, structure: string, read: (reader: ByteReader) => T): T {
  const reader = new ByteReader(bytes, structure, "tpm")
  const value = read(reader)
  reader.end()
  return value
}
