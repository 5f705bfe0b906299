/**
 * @module lib/encoding
 *
 * The fixed encoding under every signature, digest and transcript: a domain label, then each field as a 32-bit
 * big-endian length and its bytes. Two different (label, fields) never encode alike, because every part carries
 * its length and the field count is encoded too. msgpack is transport only and never signed.
 */

import { ByteReader, equalBytes, putU32be, putU64be, utf8 } from "./bytes.ts"
import type { ErrorCode } from "./errors.ts"

export type Field = Uint8Array | string | number | bigint

const MAX_FIELDS = 64
const LENGTH_BYTES = 4

/**
 * `u32 label length, label, u32 field count, { u32 length, bytes }*`. Strings are UTF-8, numbers and bigints are
 * unsigned 64-bit big-endian.
 *
 * @throws RangeError for a negative, fractional or over-long number.
 */
export function encodeFields(label: string, fields: readonly Field[]): Uint8Array {
  if (fields.length > MAX_FIELDS) throw new RangeError(`more than ${MAX_FIELDS} fields`)
  const parts = [utf8(label), ...fields.map(fieldBytes)]
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + LENGTH_BYTES + length, LENGTH_BYTES))
  let at = 0
  const put = (bytes: Uint8Array): void => {
    putU32be(out, at, bytes.length)
    out.set(bytes, at + LENGTH_BYTES)
    at += LENGTH_BYTES + bytes.length
  }
  put(parts[0]!)
  putU32be(out, at, fields.length)
  at += LENGTH_BYTES
  for (let index = 1; index < parts.length; index++) put(parts[index]!)
  return out
}

/**
 * The fields under `label`, exactly `names.length` of them, as views into `bytes`. The inverse of
 * {@link encodeFields}: another label or count, a length past the end and anything trailing are refused.
 *
 * Trust: `bytes` may come from a peer; what the fields hold is for the caller to check.
 *
 * @throws MvmError `code`, naming `structure` and the field.
 */
export function decodeFields<const Name extends string>(
  bytes: Uint8Array,
  label: string,
  names: readonly Name[],
  { structure, code }: { structure: string; code: ErrorCode },
): Record<Name, Uint8Array> {
  const reader = new ByteReader(bytes, structure, code)
  const expected = utf8(label)
  const labelBytes = reader.u32be("label")
  if (labelBytes !== expected.length || !equalBytes(reader.bytes(labelBytes, "label"), expected)) {
    throw reader.error("label", `not ${label}`)
  }
  const count = reader.u32be("count")
  if (count !== names.length) throw reader.error("count", `${count} fields, not ${names.length}`)
  const out = {} as Record<Name, Uint8Array>
  for (const name of names) out[name] = reader.bytes(reader.u32be(name), name)
  reader.end()
  return out
}

function fieldBytes(field: Field): Uint8Array {
  if (typeof field === "string") return utf8(field)
  if (field instanceof Uint8Array) return field
  const out = new Uint8Array(8)
  if (typeof field === "number" && Number.isSafeInteger(field) && field >= 0) {
    putU64be(out, 0, field)
    return out
  }
  const value = BigInt(field)
  if (value < 0n || value >= 1n << 64n) throw new RangeError("number does not fit 64 bits")
  putU32be(out, 0, Number(value >> 32n))
  putU32be(out, 4, Number(value & 0xffff_ffffn))
  return out
}
