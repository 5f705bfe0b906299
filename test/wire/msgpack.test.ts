import { describe, expect, test } from "bun:test"
import { fileURLToPath } from "node:url"
import fc from "fast-check"
import { fromHex } from "../../src/lib/bytes.ts"
import { decodeStrict, encodeStrict } from "../../src/wire/msgpack.ts"
import { errorOf } from "./error-of.ts"

// Typed from the MessagePack specification.
const GOLDEN: readonly (readonly [unknown, string])[] = [
  [null, "c0"],
  [false, "c2"],
  [true, "c3"],
  [0, "00"],
  [127, "7f"],
  [128, "cc80"],
  [255, "ccff"],
  [256, "cd0100"],
  [65535, "cdffff"],
  [65536, "ce00010000"],
  [4294967295, "ceffffffff"],
  [4294967296, "d30000000100000000"],
  [9007199254740991, "d3001fffffffffffff"],
  [-1, "ff"],
  [-32, "e0"],
  [-33, "d0df"],
  [-128, "d080"],
  [-129, "d1ff7f"],
  [-32768, "d18000"],
  [-32769, "d2ffff7fff"],
  [-2147483648, "d280000000"],
  [-2147483649, "d3ffffffff7fffffff"],
  [-9007199254740991, "d3ffe0000000000001"],
  ["", "a0"],
  ["a", "a161"],
  ["\u00e9", "a2c3a9"],
  ["a".repeat(31), "bf" + "61".repeat(31)],
  ["a".repeat(32), "d920" + "61".repeat(32)],
  ["a".repeat(256), "da0100" + "61".repeat(256)],
  [new Uint8Array(0), "c400"],
  [new Uint8Array(255), "c4ff" + "00".repeat(255)],
  [new Uint8Array(256), "c50100" + "00".repeat(256)],
  [[], "90"],
  [[1, [2]], "92019102"],
  [Array.from({ length: 16 }, () => 0), "dc0010" + "00".repeat(16)],
  [{}, "80"],
  [{ a: 1, b: { c: null } }, "82a16101a16281a163c0"],
]

const REFUSED: Readonly<Record<string, string>> = {
  "no bytes": "",
  "a second value": "c0c0",
  "the unused type": "c1",
  "float 32": "ca3f800000",
  "float 64": "cb3ff0000000000000",
  "an integer written as float": "cb4000000000000000",
  "uint 64": "cf0000000100000000",
  "fixext 1": "d40000",
  "a record definition": "d4724091a161",
  "fixext 4, a timestamp": "d6ff00000000",
  "ext 8": "c7010000",
  "ext 16": "c800010000",
  "ext 32": "c90000000100" + "00",
  "127 as uint 8": "cc7f",
  "255 as uint 16": "cd00ff",
  "65535 as uint 32": "ce0000ffff",
  "a positive int 8": "d001",
  "-32 as int 8": "d0e0",
  "-128 as int 16": "d1ff80",
  "-32768 as int 32": "d2ffff8000",
  "4294967295 as int 64": "d300000000ffffffff",
  "2^53": "d30020000000000000",
  "-2^53": "d3ffe0000000000000",
  "a short string as str 8": "d90161",
  "a short string as str 16": "da000161",
  "a short string as str 32": "db0000000161",
  "short bytes as bin 16": "c5000100",
  "short bytes as bin 32": "c60000000100",
  "one element as array 16": "dc000100",
  "one element as array 32": "dd0000000100",
  "one entry as map 16": "de0001a16100",
  "one entry as map 32": "df00000001a16100",
  "a huge string": "dbffffffff",
  "huge bytes": "c6ffffffff",
  "a huge array": "ddffffffff",
  "a huge map": "dfffffffff",
  "an integer key": "810000",
  "an empty key": "81a000",
  "a key that is bytes": "81c4016100",
  "a key that begins with a digit": "81a13100",
  "the key __proto__": "81a95f5f70726f746f5f5f80",
  "the key constructor": "81ab636f6e7374727563746f7200",
  "the key toString": "81a8746f537472696e6700",
  "a key of 32 characters": "81d920" + "61".repeat(32) + "00",
  "a repeated key": "82a16101a16102",
  "keys in descending order": "82a16201a16101",
  "a longer key before its prefix": "82a2616101a16101",
  "a lone continuation byte": "a180",
  "an overlong form": "a2c080",
  "a surrogate": "a3eda080",
  "a code point over U+10FFFF": "a4f4908080",
  "a truncated sequence": "a1c3",
  "a leading byte order mark": "a3efbbbf",
}

describe("the canonical encoding", () => {
  for (const [value, hex] of GOLDEN) {
    test(`of ${hex.slice(0, 24)} goes both ways`, () => {
      expect(encodeStrict(value).toHex()).toBe(hex)
      expect(decodeStrict(fromHex(hex))).toEqual(value)
    })
  }

  test("sorts keys and leaves undefined ones out", () => {
    expect(encodeStrict({ b: 1, c: undefined, a: 2, B: 3 }).toHex()).toBe("83a14203a16102a16201")
  })

  test("round trips every value of the subset", () => {
    const key = fc.stringMatching(/^[A-Za-z][A-Za-z0-9]{0,30}$/).filter((word) => !(word in Object.prototype))
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 5 },
        fc.constantFrom(null, true, false),
        fc.maxSafeInteger(),
        fc.integer({ min: -70000, max: 70000 }),
        fc.string({ unit: "binary", maxLength: 300 }).filter((word) => !word.startsWith("\ufeff")),
        fc.uint8Array({ maxLength: 300 }),
        fc.array(tie("value"), { maxLength: 20 }),
        fc.dictionary(key, tie("value"), { maxKeys: 20, noNullPrototype: true }),
      ),
    }))
    fc.assert(
      fc.property(value, (original) => {
        const encoded = encodeStrict(original)
        const decoded = decodeStrict(encoded)
        expect(decoded).toEqual(original)
        expect(encodeStrict(decoded)).toEqual(encoded)
      }),
      { seed: 4, numRuns: 500 },
    )
  })

  test("carries a payload of 60 KiB", () => {
    const value = { bytes: new Uint8Array(30000).fill(7), text: "é".repeat(15000) }
    expect(decodeStrict(encodeStrict(value))).toEqual(value)
  })

  test("copies byte strings out of the input", () => {
    const input = fromHex("c40301" + "0203")
    const value = decodeStrict(input) as Uint8Array
    input.fill(0)
    expect(value).toEqual(Uint8Array.of(1, 2, 3))
    expect(Object.getPrototypeOf(value)).toBe(Uint8Array.prototype)
  })
})

describe("decodeStrict refuses", () => {
  for (const [what, hex] of Object.entries(REFUSED)) {
    test(what, () => {
      expect(errorOf(() => decodeStrict(fromHex(hex))).code).toBe("protocol")
    })
  }

  test("what is nested deeper than asked for", () => {
    const nested = (depth: number): Uint8Array => fromHex("91".repeat(depth) + "c0")
    expect(decodeStrict(nested(8))).toEqual([[[[[[[[null]]]]]]]])
    expect(errorOf(() => decodeStrict(nested(9))).message).toContain("nested too deep")
    expect(errorOf(() => decodeStrict(nested(60000))).code).toBe("protocol")
    expect(errorOf(() => decodeStrict(fromHex("81a16181a162c0"), { maxDepth: 1 })).code).toBe("protocol")
  })

  test("every truncation", () => {
    for (const [, hex] of GOLDEN) {
      const whole = fromHex(hex)
      for (let length = 0; length < whole.length; length++) {
        expect(errorOf(() => decodeStrict(whole.subarray(0, length))).code).toBe("protocol")
      }
    }
  })

  test("any change that is not itself canonical", () => {
    const seed = encodeStrict([
      1,
      70000,
      { alpha: new Uint8Array(9), beta: "text é", gamma: [{ id: 2 ** 40 }] },
    ])
    const change = fc.record({ at: fc.nat(seed.length - 1), byte: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const mutated = Uint8Array.from(seed)
        for (const { at, byte } of changes) mutated[at] = byte
        expectTotal(mutated)
      }),
      { seed: 5, numRuns: 5000 },
    )
  })

  test("random bytes, with nothing but a protocol error", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), expectTotal), { seed: 6, numRuns: 5000 })
  })
})

describe("encodeStrict refuses", () => {
  const refused: Readonly<Record<string, unknown>> = {
    "a float": 1.5,
    "2^53": 2 ** 53,
    NaN: Number.NaN,
    "a bigint": 1n,
    undefined: undefined,
    "undefined in an array": [undefined],
    "a function": () => 1,
    "a date": new Date(0),
    "a map": new Map(),
    "a class": new (class Thing {})(),
    "a lone surrogate": "\ud800",
    "a key that is no field name": { "a b": 1 },
    "the key toJSON of a prototype": { valueOf: 1 },
    "a loop": loop(),
  }
  for (const [what, value] of Object.entries(refused)) {
    test(what, () => {
      expect(errorOf(() => encodeStrict(value)).code).toBe("internal")
    })
  }
})

test("the bundle of the codec looks for no native module", async () => {
  const entry = fileURLToPath(new URL("../../src/wire/msgpack.ts", import.meta.url))
  const { success, outputs } = await Bun.build({ entrypoints: [entry], target: "bun" })
  expect(success).toBe(true)
  const code = await outputs[0]!.text()
  expect(code).toContain("class Packr")
  expect(code).not.toMatch(/msgpackr-extract|createRequire|setExtractor\(/)
})

/** Either a protocol error, or a value with exactly this encoding; the prototype of objects stays clean. */
function expectTotal(bytes: Uint8Array): void {
  let value: unknown
  try {
    value = decodeStrict(bytes)
  } catch (error) {
    expect((error as { code?: string }).code).toBe("protocol")
    return
  }
  expect(encodeStrict(value)).toEqual(bytes)
}

function loop(): unknown {
  const value: unknown[] = []
  value.push(value)
  return value
}
