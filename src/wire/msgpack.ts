/**
 * @module wire/msgpack
 *
 * A strict subset of MessagePack over msgpackr, in which each value has exactly one encoding: nil, booleans,
 * integers within +-(2^53 - 1), byte strings, UTF-8 strings, arrays, and maps from field names to values in
 * ascending order of names. Not supported, and refused: floats, extensions, other keys, longer forms than
 * needed.
 *
 * Integers that need more than 32 bits are `int64` (0xd3), also positive ones: this is msgpackr's form of them, so
 * `uint64` (0xcf) is a second form and refused.
 *
 * The imports are msgpackr's pure entry points; its main one looks for a native module on disk at run time, which
 * would be code outside the measured executable.
 *
 * @spec https://github.com/msgpack/msgpack/blob/master/spec.md
 */

import { Packr, RESET_BUFFER_MODE } from "msgpackr/pack"
import { Unpackr } from "msgpackr/unpack"
import { MvmError } from "../lib/errors.ts"
import { MAX_KEY_BYTES, scanCanonical } from "./msgpack-scan.ts"

export const DEFAULT_MAX_DEPTH = 8

const packr = new Packr({ useRecords: false, variableMapSize: true, useToJSON: false })
const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  int64AsType: "number",
  copyBuffers: true,
})

const UINT32_MAX = 0xffff_ffff
const INT32_MIN = -0x8000_0000

/** Words of ASCII letters and digits; anything JavaScript gives every object would confuse readers of the map. */
export function isFieldName(key: string): boolean {
  return key.length <= MAX_KEY_BYTES && /^[A-Za-z][A-Za-z0-9]*$/.test(key) && !(key in Object.prototype)
}

/**
 * The one encoding of `value`: null, boolean, safe integer, string, `Uint8Array`, or arrays and plain objects of
 * these. Keys whose value is undefined are left out.
 *
 * @throws MvmError `internal` for a value outside the subset.
 */
export function encodeStrict(value: unknown): Uint8Array {
  return new Uint8Array(packr.pack(packable(value, DEFAULT_MAX_DEPTH), RESET_BUFFER_MODE))
}

/**
 * The value that `bytes` encodes; byte strings in it are copies.
 *
 * Trust: `bytes` is hostile. Before msgpackr sees anything, a scan that allocates nothing admits the subset alone,
 * bounds the nesting and checks each length against the bytes left; afterwards the value must encode to the
 * same bytes again.
 *
 * @throws MvmError `protocol` for anything but one canonical value.
 */
export function decodeStrict(bytes: Uint8Array, options: { readonly maxDepth?: number } = {}): unknown {
  // msgpackr keeps a DataView on the array it is given; a view of our own leaves the caller's object alone.
  const input = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  scanCanonical(input, options.maxDepth ?? DEFAULT_MAX_DEPTH)
  const value: unknown = unpackr.unpack(input)
  if (!encodesTo(value, input)) throw new MvmError("protocol", "msgpack: not the canonical encoding")
  return value
}

function encodesTo(value: unknown, bytes: Uint8Array): boolean {
  try {
    return Buffer.compare(packr.pack(packable(value, Infinity), RESET_BUFFER_MODE), bytes) === 0
  } catch (error) {
    if (error instanceof MvmError) return false
    throw error
  }
}

/**
 * `value` as msgpackr has to be given it: keys sorted, undefined ones left out, integers over 32 bits as bigint
 * (it would make floats of them). Objects that are right already are passed on as they are.
 */
function packable(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case "boolean":
      return value
    case "number":
      if (!Number.isSafeInteger(value)) throw unsupported("a number that is no safe integer")
      return value > UINT32_MAX || value < INT32_MIN ? BigInt(value) : value
    case "string":
      // A leading byte order mark is dropped by text decoders, so it cannot survive a round trip.
      if (!value.isWellFormed() || value.startsWith("\ufeff"))
        throw unsupported("text that is no plain UTF-8")
      return value
    case "object":
      if (value === null || value instanceof Uint8Array) return value
      if (depth === 0) throw unsupported("nesting that is too deep")
      return Array.isArray(value) ? packableArray(value, depth) : packableMap(value, depth)
    default:
      throw unsupported(`a value of type ${typeof value}`)
  }
}

function packableArray(array: readonly unknown[], depth: number): readonly unknown[] {
  const out: unknown[] = []
  for (const item of array) out.push(packable(item, depth - 1))
  return out
}

function packableMap(map: object, depth: number): object {
  const prototype: unknown = Object.getPrototypeOf(map)
  if (prototype !== Object.prototype && prototype !== null) throw unsupported("an object of a class")
  const source = map as Readonly<Record<string, unknown>>
  const out: Record<string, unknown> = {}
  for (const key of sorted(Object.keys(source))) {
    const value = source[key]
    if (value === undefined) continue
    if (!isFieldName(key)) throw unsupported("a map key that is no field name")
    out[key] = packable(value, depth - 1)
  }
  return out
}

/** What is decoded or checked against a message's row is in order already. */
function sorted(keys: string[]): string[] {
  for (let at = 1; at < keys.length; at++) if (keys[at]! < keys[at - 1]!) return keys.sort()
  return keys
}

function unsupported(what: string): MvmError {
  return new MvmError("internal", `msgpack: cannot encode ${what}`)
}
