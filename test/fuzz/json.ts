/**
 * @module test/fuzz/json
 *
 * JSON changed where it means something: a value replaced, a key lost, doubled, renamed or moved, at any depth.
 */

import type { Random } from "./random.ts"

const VALUES: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  2 ** 53,
  -(2 ** 60),
  "",
  "x",
  "ab".repeat(32),
  "\ud800",
  "\u0000",
  "__proto__",
  "a".repeat(5000),
  [],
  {},
  [[[[[]]]]],
  [null],
  { a: 1 },
  "AAAA",
  "not base64 !",
  "kernel",
  "agent",
  "trusted",
]
const KEYS = ["__proto__", "constructor", "toString", "", "x", "length", "then"]

/** A changed copy of `value`. */
export function mutateJson(random: Random, value: unknown): unknown {
  if (random.once(12)) return random.pick(VALUES)
  if (Array.isArray(value)) return mutateArray(random, value)
  if (typeof value === "object" && value !== null)
    return mutateObject(random, value as Record<string, unknown>)
  return mutateLeaf(random, value)
}

function mutateArray(random: Random, value: readonly unknown[]): unknown[] {
  if (value.length === 0) return [random.pick(VALUES)]
  const at = random.below(value.length)
  switch (random.below(6)) {
    case 0:
      return value.toSpliced(at, 1)
    case 1:
      return value.toSpliced(at, 0, value[at])
    default:
      return value.with(at, mutateJson(random, value[at]))
  }
}

function mutateObject(random: Random, value: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(value)
  if (entries.length === 0) return { [random.pick(KEYS)]: random.pick(VALUES) }
  const at = random.below(entries.length)
  const [key, inner] = entries[at]!
  switch (random.below(10)) {
    case 0:
      return Object.fromEntries(entries.toSpliced(at, 1))
    case 1:
      return Object.fromEntries([...entries, [random.pick(KEYS), random.pick(VALUES)]])
    case 2:
      return Object.fromEntries(entries.with(at, [random.pick(KEYS), inner]))
    case 3:
      return Object.fromEntries(entries.with(at, [key, random.pick(entries)[1]]))
    default:
      return Object.fromEntries(entries.with(at, [key, mutateJson(random, inner)]))
  }
}

function mutateLeaf(random: Random, value: unknown): unknown {
  if (typeof value === "number") return value + random.pick([-1, 1, 0.5, 2 ** 31, -(2 ** 32)])
  if (typeof value !== "string" || value.length === 0) return random.pick(VALUES)
  const at = random.below(value.length)
  switch (random.below(4)) {
    case 0:
      return value.slice(0, at)
    case 1:
      return `${value.slice(0, at)}${random.pick(["0", "f", "\u00e9", "=", " "])}${value.slice(at + 1)}`
    case 2:
      return value + value
    default:
      return random.pick(VALUES)
  }
}
