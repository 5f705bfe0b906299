import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import {
  bool,
  bytes,
  bytesUpTo,
  checkField,
  describeField,
  list,
  name,
  oneOf,
  optional,
  struct,
  text,
  u16,
  u32,
  u53,
  u8,
  type AnyField,
  type Infer,
} from "../../src/wire/schema.ts"
import { arbitraryField } from "./arbitrary.ts"
import { errorOf } from "./error-of.ts"

const ITEM = struct({ id: u32, tags: list(name(4), 2), note: optional(text(5)) })

const CASES: Readonly<Record<string, { field: AnyField; good: unknown[]; bad: unknown[] }>> = {
  "bytes(2)": {
    field: bytes(2),
    good: [Uint8Array.of(1, 2), Buffer.from("ab")],
    bad: [Uint8Array.of(1), new Uint8Array(3), "ab", [1, 2], null, undefined, { length: 2 }],
  },
  "bytesUpTo(2)": {
    field: bytesUpTo(2),
    good: [new Uint8Array(0), new Uint8Array(2)],
    bad: [new Uint8Array(3), "", null],
  },
  "text(4)": {
    field: text(4),
    good: ["", "abcd", "éé", "\n"],
    bad: ["abcde", "ééa", "a\0b", "\ud800", "\ufeff", 1, null, new Uint8Array(1)],
  },
  "name(5)": {
    field: name(5),
    good: ["a", "web.1", "_x-y", "0"],
    bad: ["", "abcdef", ".", "..", "-a", ".a", "a/b", "a b", "é", "a\n", "a\0", 1, null],
  },
  u8: { field: u8, good: [0, 255], bad: [256, -1, 1.5, "1", 1n, Number.NaN, null] },
  u16: { field: u16, good: [0, 65535], bad: [65536] },
  u32: { field: u32, good: [0, 4294967295], bad: [4294967296] },
  u53: { field: u53, good: [0, 2 ** 53 - 1], bad: [2 ** 53, Infinity, -1] },
  bool: { field: bool, good: [true, false], bad: [0, 1, "true", null] },
  '"on" | "off"': { field: oneOf(["on", "off"]), good: ["on", "off"], bad: ["", "ON", "toString", 0, null] },
  "list(u8, 2)": { field: list(u8, 2), good: [[], [1, 2]], bad: [[1, 2, 3], [256], [undefined], "ab", null] },
  "{id: u32, tags: list(name(4), 2), note?: text(5)}": {
    field: ITEM,
    good: [{ id: 1, tags: [] }, Object.assign(Object.create(null), { id: 1, tags: ["a"], note: "n" })],
    bad: [
      {},
      { id: 1 },
      { id: 1, tags: [], extra: 1 },
      { id: 1, tags: [], note: null },
      Object.create({ id: 1, tags: [] }),
      [1, []],
      null,
    ],
  },
}

for (const [rule, { field, good, bad }] of Object.entries(CASES)) {
  describe(rule, () => {
    test("admits what it says", () => {
      for (const value of good) expect(checkField(field, value, "m")).toEqual(value)
    })

    test("refuses everything else", () => {
      for (const value of bad) expect(errorOf(() => checkField(field, value, "m")).code).toBe("protocol")
    })

    test("describes itself so", () => {
      expect(describeField(field)).toBe(rule)
    })

    test("admits what its generator makes", () => {
      fc.assert(
        fc.property(arbitraryField(field), (value) => {
          expect(checkField(field, value, "m")).toEqual(value)
        }),
        { seed: 7, numRuns: 50 },
      )
    })
  })
}

describe("a refusal", () => {
  const outer = struct({ items: list(ITEM, 3), nonce: bytes(16) })
  const message = (value: unknown): string => errorOf(() => checkField(outer, value, "HELLO")).message
  const nonce = new Uint8Array(16)

  test("names the path of the field", () => {
    const items = [
      { id: 1, tags: [] },
      { id: 2, tags: ["a", "b c"] },
    ]
    expect(message({ items, nonce })).toStartWith("HELLO.items[1].tags[1]: expected a name")
    expect(message({ items: [], nonce: new Uint8Array(15) })).toBe(
      "HELLO.nonce: expected 16 bytes, got 15 bytes",
    )
    expect(message({ nonce })).toBe("HELLO.items: missing")
    expect(message({ items: [{ id: 1, tags: [], extra: 1 }], nonce })).toBe(
      "HELLO.items[0].extra: unknown field",
    )
    expect(message(7)).toBe("HELLO: expected a structure, got a number")
  })

  test("repeats nothing that a peer wrote", () => {
    expect(message({ items: [], nonce, "\u001b[31m": 1 })).toBe("HELLO: unknown field")
    expect(message({ items: "\u001b[31m", nonce })).toBe("HELLO.items: expected a list, got a string")
  })
})

test("an optional field that is undefined is left out of the checked copy", () => {
  const checked = checkField(ITEM, { id: 1, tags: [], note: undefined }, "m")
  expect(Object.keys(checked)).toEqual(["id", "tags"])
})

test("a structure refuses field names that mean something to every object", () => {
  for (const key of ["__proto__", "constructor", "toString", "a_b", "1a", "a".repeat(32)]) {
    expect(() => struct({ [key]: u8 })).toThrow(TypeError)
  }
})

test("types follow the fields", () => {
  type Item = Infer<typeof ITEM>
  const item = { id: 1, tags: ["a"] } satisfies Item
  const withNote: Item = { ...item, note: undefined }
  const word: Infer<ReturnType<typeof oneOf<"a" | "b">>> = "a"
  // @ts-expect-error: a required field is missing
  const missing: Item = { id: 1 }
  // @ts-expect-error: unknown field
  const unknown: Item = { ...item, extra: 1 }
  expect([withNote, word, missing, unknown].length).toBe(4)
})
