/**
 * @module test/wire/arbitrary
 *
 * Generators of admissible messages, derived from the table itself.
 */

import fc from "fast-check"
import type { AnyField, Shape } from "../../src/wire/schema.ts"
import { encodeMessage, type Message, type Table } from "../../src/wire/table.ts"

const NAME_FIRST = [..."ABYZabyz0189_"]
const NAME_REST = [...NAME_FIRST, ".", "-"]
const TEXT_UNITS = ["a", "Z", " ", "\n", "\u001b", "é", "\u2028", "\ud83d\udd10", "/"]

/** A message of any row of `table` that fits the row's greatest size. */
export function arbitraryMessage<T extends Table>(table: T): fc.Arbitrary<Message<T>> {
  const messages = Object.entries(table.rows).map(([name, { fields }]) =>
    fc.record({
      name: fc.constant(name),
      requestId: arbitraryUint(0xffff_ffff),
      fields: arbitraryShape(fields),
    }),
  )
  return fc
    .oneof(...messages)
    .filter((message) => fits(table, message)) as fc.Arbitrary<unknown> as fc.Arbitrary<Message<T>>
}

/** A value that `field` admits. */
export function arbitraryField({ spec }: AnyField): fc.Arbitrary<unknown> {
  switch (spec.type) {
    case "bytes":
      return fc.uint8Array({ minLength: spec.min, maxLength: spec.max })
    case "text":
      return fc
        .array(fc.constantFrom(...TEXT_UNITS), { maxLength: spec.max })
        .map((units) => units.join(""))
        .filter((value) => Buffer.byteLength(value) <= spec.max)
    case "name":
      return fc
        .tuple(
          fc.constantFrom(...NAME_FIRST),
          fc.array(fc.constantFrom(...NAME_REST), { maxLength: spec.max - 1 }),
        )
        .map(([first, rest]) => first + rest.join(""))
    case "uint":
      return arbitraryUint(spec.max)
    case "bool":
      return fc.boolean()
    case "oneOf":
      return fc.constantFrom(...spec.values)
    case "list":
      return fc.array(arbitraryField(spec.of), { maxLength: spec.max })
    case "struct":
      return arbitraryShape(spec.shape)
  }
}

function arbitraryShape(shape: Shape): fc.Arbitrary<unknown> {
  const fields: Record<string, fc.Arbitrary<unknown>> = {}
  for (const [key, field] of Object.entries(shape)) fields[key] = arbitraryField(field)
  const requiredKeys = Object.keys(shape).filter((key) => shape[key]?.isOptional === false)
  return fc.record(fields, { requiredKeys, noNullPrototype: true })
}

/** Each length of the encoding is as likely as the others. */
function arbitraryUint(max: number): fc.Arbitrary<number> {
  const edges = [0, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, max]
  return fc.oneof(
    fc.constantFrom(...edges.filter((edge) => edge <= max)),
    fc.maxSafeNat().map((n) => n % (max + 1)),
  )
}

function fits(table: Table, message: { name: string; requestId: number; fields: unknown }): boolean {
  try {
    encodeMessage(table, message.name, message.requestId, message.fields)
    return true
  } catch {
    return false
  }
}
