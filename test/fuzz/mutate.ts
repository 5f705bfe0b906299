/**
 * @module test/fuzz/mutate
 *
 * Changes to good inputs: bits, numbers at their edges, pieces moved, doubled, cut out or taken from another input,
 * and words of the format where there are some.
 */

import { utf8 } from "../../src/lib/bytes.ts"
import type { Random } from "./random.ts"

export const MAX_INPUT_BYTES = 256 * 1024

const EDGES = [
  0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
]

export interface Material {
  /** Another input of the same target. */
  other(): Uint8Array
  readonly words: readonly string[]
}

/** A changed copy of `input`; 1 to 5 changes. */
export function mutate(random: Random, input: Uint8Array, material: Material): Uint8Array {
  let bytes: Uint8Array = input.slice()
  const changes = 1 + (random.once(2) ? 0 : random.below(5))
  for (let i = 0; i < changes; i++) bytes = changeOnce(random, bytes, material)
  return bytes.length > MAX_INPUT_BYTES ? bytes.subarray(0, MAX_INPUT_BYTES) : bytes
}

function changeOnce(random: Random, bytes: Uint8Array, { other, words }: Material): Uint8Array {
  const at = random.below(bytes.length + 1)
  const length = Math.min(random.length(bytes.length), bytes.length - at)
  switch (random.below(words.length > 0 ? 14 : 11)) {
    case 0:
      if (bytes.length > 0) bytes[random.below(bytes.length)]! ^= 1 << random.below(8)
      return bytes
    case 1:
      if (bytes.length > 0) bytes[random.below(bytes.length)] = random.u32() & 0xff
      return bytes
    case 2:
    case 3:
      return putNumber(random, bytes, at)
    case 4:
      return splice(bytes, at, length, new Uint8Array(0))
    case 5:
      return splice(bytes, at, 0, random.bytes(random.length(64)))
    case 6:
      return splice(bytes, at, 0, bytes.slice(at, at + length))
    case 7: {
      const from = other()
      const start = random.below(from.length + 1)
      return splice(bytes, at, length, from.slice(start, start + random.length(from.length)))
    }
    case 8:
      return bytes.slice(0, at)
    case 9: {
      const piece = bytes.slice(at, at + length)
      return splice(
        splice(bytes, at, length, new Uint8Array(0)),
        random.below(bytes.length - length + 1),
        0,
        piece,
      )
    }
    case 10:
      bytes.fill(random.u32() & 0xff, at, at + length)
      return bytes
    case 11:
      return splice(bytes, at, length, utf8(random.pick(words)))
    case 12:
      return splice(
        bytes,
        at,
        0,
        utf8(random.pick(words).repeat(random.once(8) ? random.below(20_000) : random.below(20))),
      )
    default:
      return splice(bytes, at, 0, utf8(random.pick(words)))
  }
}

/** A number at the edge of its kind, or one off what is there, in either order of bytes. */
function putNumber(random: Random, bytes: Uint8Array, at: number): Uint8Array {
  const size = random.pick([1, 2, 4])
  if (at + size > bytes.length) return bytes
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, size)
  const little = random.once(2)
  const present =
    size === 1 ? view.getUint8(0) : size === 2 ? view.getUint16(0, little) : view.getUint32(0, little)
  const value = random.once(3) ? present + random.below(9) - 4 : random.pick(EDGES)
  if (size === 1) view.setUint8(0, value)
  else if (size === 2) view.setUint16(0, value, little)
  else view.setUint32(0, value, little)
  return bytes
}

function splice(bytes: Uint8Array, at: number, remove: number, put: Uint8Array): Uint8Array {
  const room = Math.max(0, MAX_INPUT_BYTES - (bytes.length - remove))
  const added = put.length > room ? put.subarray(0, room) : put
  const out = new Uint8Array(bytes.length - remove + added.length)
  out.set(bytes.subarray(0, at))
  out.set(added, at)
  out.set(bytes.subarray(at + remove), at + added.length)
  return out
}
