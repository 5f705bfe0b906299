/**
 * @module test/wire/greatest-bytes
 *
 * The length of the longest message that a row's fields admit, so that a row whose greatest size is too small for
 * its own fields is found before such a message is sent.
 */

import type { AnyField, Shape } from "../../src/wire/schema.ts"

const ENVELOPE_BYTES = 1 + 2 + 5

export function greatestMessageBytes(fields: Shape): number {
  return ENVELOPE_BYTES + greatestShapeBytes(fields)
}

function greatestFieldBytes({ spec }: AnyField): number {
  switch (spec.type) {
    case "bytes":
      return Math.max(2, headerBytes(spec.max, 0)) + spec.max
    case "text":
    case "name":
      return headerBytes(spec.max, 32) + spec.max
    case "oneOf":
      return Math.max(...spec.values.map((word) => headerBytes(word.length, 32) + word.length))
    case "uint":
      return spec.max <= 0xff ? 2 : spec.max <= 0xffff ? 3 : spec.max <= 0xffff_ffff ? 5 : 9
    case "bool":
      return 1
    case "list":
      return (spec.max < 16 ? 1 : 3) + spec.max * greatestFieldBytes(spec.of)
    case "struct":
      return greatestShapeBytes(spec.shape)
  }
}

function greatestShapeBytes(shape: Shape): number {
  const entries = Object.entries(shape)
  const header = entries.length < 16 ? 1 : 3
  return entries.reduce((sum, [key, field]) => sum + 1 + key.length + greatestFieldBytes(field), header)
}

/** Length of the header of a string of `lengthBytes`; below `fixLimit` it is one byte. */
function headerBytes(lengthBytes: number, fixLimit: number): number {
  if (lengthBytes < fixLimit) return 1
  return lengthBytes < 0x100 ? 2 : lengthBytes < 0x1_0000 ? 3 : 5
}
