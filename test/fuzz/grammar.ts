/**
 * @module test/fuzz/grammar
 *
 * Messages made from the table's own rules, most of them good, some wrong in one place: a field of another type,
 * over its bound, missing, doubled or unknown, and MessagePack in forms that the strict decoder must refuse.
 */

import { utf8 } from "../../src/lib/bytes.ts"
import type { AnyField, Shape } from "../../src/wire/schema.ts"
import { MAX_INPUT_BYTES } from "./mutate.ts"
import type { Random } from "./random.ts"

const NAME_CHARACTERS = "abzAZ019_.-"
const TEXTS = [
  "",
  "a",
  "é",
  "\u2028",
  "\u001b[31m",
  "/etc/passwd",
  "\ud83d\udd10",
  "..",
  "\0",
  "\ufeff",
  "x".repeat(300),
]
const UINT_EDGES = [
  0,
  1,
  0x7f,
  0x80,
  0xff,
  0x100,
  0xffff,
  0x1_0000,
  0xffff_ffff,
  0x1_0000_0000,
  Number.MAX_SAFE_INTEGER,
]
const UNKNOWN_KEYS = ["x", "zzz", "__proto__", "constructor", "toString", "", "a b", "k".repeat(40)]

/** One deviation in about this many fields. */
const DEVIATION = 24

/** The payload of one message of the row. */
export function messageBytes(random: Random, row: { id: number; fields: Shape }): Uint8Array {
  const out: number[] = []
  out.push(0x93)
  packUint(random, out, random.once(100) ? random.below(256) : row.id)
  packUint(random, out, random.once(2) ? random.below(4) : random.u32())
  packShape(random, out, row.fields)
  return Uint8Array.from(out)
}

function packShape(random: Random, out: number[], shape: Shape): void {
  let keys = Object.keys(shape).sort()
  keys = keys.filter((key) => !shape[key]!.isOptional || random.once(2))
  if (random.once(DEVIATION)) keys = keys.filter(() => !random.once(4))
  if (random.once(DEVIATION)) keys = [...keys, random.pick(UNKNOWN_KEYS)].sort()
  if (random.once(4 * DEVIATION) && keys.length > 0) keys.push(keys[0]!)
  if (random.once(4 * DEVIATION)) keys.reverse()
  packHeader(random, out, keys.length, { fix: 0x80, fixMax: 15, wide: [0xde, 0xdf] })
  for (const key of keys) {
    packText(random, out, key, 4000)
    const field = Object.hasOwn(shape, key) ? shape[key] : undefined
    if (field) packField(random, out, field)
    else packAnything(random, out, 3)
  }
}

function packField(random: Random, out: number[], { spec }: AnyField): void {
  if (random.once(DEVIATION * 2)) return packAnything(random, out, 4)
  const over = random.once(DEVIATION * 2) ? 1 : 0
  switch (spec.type) {
    case "bytes":
      return packBytes(random, out, random.bytes(Math.max(spec.min, random.length(spec.max)) + over))
    case "text":
      return packText(random, out, over ? "y".repeat(spec.max + 1) : random.pick(TEXTS).slice(0, spec.max))
    case "name": {
      const length = Math.min(1 + random.length(spec.max - 1) + over, spec.max + over)
      return packText(random, out, Array.from({ length }, () => random.pick(NAME_CHARACTERS)).join(""))
    }
    case "uint":
      return packUint(random, out, random.once(2) ? random.pick(UINT_EDGES) : random.below(spec.max + 1))
    case "bool":
      out.push(random.once(2) ? 0xc2 : 0xc3)
      return
    case "oneOf":
      return packText(random, out, over ? "neither" : random.pick(spec.values))
    case "list": {
      const count = random.length(Math.min(spec.max, 40)) + over
      packHeader(random, out, count, { fix: 0x90, fixMax: 15, wide: [0xdc, 0xdd] })
      for (let i = 0; i < count && out.length < MAX_INPUT_BYTES; i++) packField(random, out, spec.of)
      return
    }
    case "struct":
      return packShape(random, out, spec.shape)
  }
}

/** Any MessagePack there is, extensions and floats too, nested up to `depth`. */
export function packAnything(random: Random, out: number[], depth: number): void {
  switch (random.below(depth > 0 ? 11 : 8)) {
    case 0:
      out.push(random.pick([0xc0, 0xc1, 0xc2, 0xc3]))
      return
    case 1:
      return packUint(random, out, random.pick(UINT_EDGES))
    case 2:
      return packText(random, out, random.pick(TEXTS))
    case 3:
      return packBytes(random, out, random.bytes(random.length(64)))
    case 4:
      out.push(random.pick([0xca, 0xcb, 0xcf, 0xd0, 0xd1, 0xd2, 0xd3]), ...random.bytes(random.pick([4, 8])))
      return
    case 5:
      out.push(random.pick([0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xc7]), ...random.bytes(random.pick([2, 3, 5, 9])))
      return
    case 6:
      out.push(0xe0 + random.below(32))
      return
    case 7:
      out.push(...random.bytes(random.below(6)))
      return
    default: {
      const count = random.below(5)
      const isMap = random.once(2)
      packHeader(
        random,
        out,
        count,
        isMap ? { fix: 0x80, fixMax: 15, wide: [0xde, 0xdf] } : { fix: 0x90, fixMax: 15, wide: [0xdc, 0xdd] },
      )
      for (let i = 0; i < count; i++) {
        if (isMap) packText(random, out, random.pick(UNKNOWN_KEYS))
        packAnything(random, out, depth - 1)
      }
    }
  }
}

/** A length in its shortest form, now and then in a longer one or one off. */
function packHeader(
  random: Random,
  out: number[],
  count: number,
  form: { fix: number; fixMax: number; wide: [number, number] },
): void {
  const said = random.once(1000) ? random.pick(UINT_EDGES) : count
  if (said <= form.fixMax && !random.once(500)) out.push(form.fix | said)
  else if (said <= 0xffff && !random.once(500)) out.push(form.wide[0], (said >> 8) & 0xff, said & 0xff)
  else out.push(form.wide[1], ...be32(said))
}

function packUint(random: Random, out: number[], value: number): void {
  const longer = random.once(500)
  if (value < 0x80 && !longer) out.push(value)
  else if (value <= 0xff) out.push(0xcc, value)
  else if (value <= 0xffff) out.push(0xcd, value >> 8, value & 0xff)
  else if (value <= 0xffff_ffff) out.push(0xce, ...be32(value))
  else out.push(random.once(50) ? 0xcf : 0xd3, ...be32(Math.floor(value / 2 ** 32)), ...be32(value))
}

function packBytes(random: Random, out: number[], bytes: Uint8Array): void {
  const said = random.once(1000) ? random.below(0x2_0000) : bytes.length
  if (said <= 0xff && !random.once(500)) out.push(0xc4, said)
  else if (said <= 0xffff) out.push(0xc5, said >> 8, said & 0xff)
  else out.push(0xc6, ...be32(said))
  for (const byte of bytes) out.push(byte)
}

/** @param rarely once in so many times it is no text at all, or in a longer form */
function packText(random: Random, out: number[], text: string, rarely = 200): void {
  const bytes = random.once(rarely) ? random.bytes(text.length) : utf8(text)
  const { length } = bytes
  if (length < 32 && !random.once(rarely)) out.push(0xa0 | length)
  else if (length <= 0xff) out.push(0xd9, length)
  else out.push(0xda, length >> 8, length & 0xff)
  for (const byte of bytes) out.push(byte)
}

function be32(value: number): number[] {
  return [(value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff]
}
