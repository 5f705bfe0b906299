/**
 * @module lib/encoding
 *
 * The fixed encoding under every signature, digest and transcript: a domain label, then each field as a 32-bit
 * big-endian length and its bytes. Two different (label, fields) never encode alike, because every part carries
 * its length and the field count is encoded too. msgpack is transport only and never signed.
 */

import { ByteReader, concat, equalBytes, utf8 } from "./bytes.ts"
import type { ErrorCode } from "./errors.ts"

export type Field = Uint8Array | string | number | bigint

const MAX_FIELDS = 64

/**
 * `u32 label length, label, u32 field count, { u32 length, bytes }*`. Strings are UTF-8, numbers and bigints are
 * unsigned 64-bit big-endian.
 *
 * @throws RangeError for a negative, fractional or over-long number.
 */
export function encodeFields(label: string, fields: readonly Field[]): Uint8Array {
  if (fields.length > MAX_FIELDS) throw new RangeError(`more than ${MAX_FIELDS} fields`)
  const parts: Uint8Array[] = []
  const push = (bytes: Uint8Array): void => {
    parts.push(u32(bytes.length), bytes)
  }
  push(utf8(label))
  parts.push(u32(fields.length))
  for (const field of fields) push(fieldBytes(field))
  return concat(...parts)
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
  const value = BigInt(field)
  if (value < 0n || value >= 1n << 64n) throw new RangeError("number does not fit 64 bits")
  const out = new Uint8Array(8)
  new DataView(out.buffer).setBigUint64(0, value)
  return out
}

function u32(value: number): Uint8Array {
  const out = new Uint8Array(4)
  new DataView(out.buffer).setUint32(0, value)
  return out
}
