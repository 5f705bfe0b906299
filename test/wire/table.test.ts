import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { concat, fromHex } from "../../src/lib/bytes.ts"
import { u8 } from "../../src/wire/schema.ts"
import {
  decodeMessage,
  defineTable,
  describeTable,
  encodeMessage,
  row,
  type FieldsOf,
  type Message,
} from "../../src/wire/table.ts"
import { arbitraryMessage } from "./arbitrary.ts"
import { errorOf } from "./error-of.ts"
import { expectTotal } from "./expect-total.ts"
import { SAMPLE } from "./sample-table.ts"

const GREETING: FieldsOf<typeof SAMPLE, "GREET"> = {
  nonce: fromHex("0102030405060708"),
  version: 1,
  host: "web.1",
}
// [1, 300, {host: "web.1", nonce: <8 bytes>, version: 1}], typed from the MessagePack specification.
const GREETING_HEX =
  "93" +
  "01" +
  "cd012c" +
  "83" +
  "a4" +
  "686f7374" +
  "a5" +
  "7765622e31" +
  "a5" +
  "6e6f6e6365" +
  "c408" +
  "0102030405060708" +
  "a7" +
  "76657273696f6e" +
  "01"

function refusalOf(hex: string, from = "guest"): string {
  const error = errorOf(() => decodeMessage(SAMPLE, fromHex(hex), from))
  expect(error.code).toBe("protocol")
  return error.message
}

describe("a message", () => {
  test("has the published bytes, both ways", () => {
    expect(encodeMessage(SAMPLE, "GREET", 300, GREETING).toHex()).toBe(GREETING_HEX)
    expect(decodeMessage(SAMPLE, fromHex(GREETING_HEX), "guest")).toEqual({
      name: "GREET",
      requestId: 300,
      fields: GREETING,
    })
  })

  test("with an id over 127 has the published bytes", () => {
    const hex = "93" + "ccc8" + "00" + "82" + "a5" + "6e616d6573" + "90" + "a6" + "71756f746573" + "90"
    expect(encodeMessage(SAMPLE, "PROVE", 0, { quotes: [], names: [] }).toHex()).toBe(hex)
    expect(decodeMessage(SAMPLE, fromHex(hex), "mvm").name).toBe("PROVE")
  })

  test("of any row round trips", () => {
    fc.assert(
      fc.property(arbitraryMessage(SAMPLE), (message) => {
        const payload = encodeMessage(SAMPLE, message.name, message.requestId, message.fields)
        const side = SAMPLE.rows[message.name].from === "mvm" ? "mvm" : "guest"
        expect(decodeMessage(SAMPLE, payload, side) as unknown).toEqual(message)
      }),
      { seed: 8, numRuns: 500 },
    )
  })

  test("tells its fields apart by name", () => {
    const message: Message<typeof SAMPLE, "guest"> = decodeMessage(SAMPLE, fromHex(GREETING_HEX), "guest")
    // @ts-expect-error: REPLY is not a message of the guest
    const isReply = message.name === "REPLY"
    const host = message.name === "GREET" ? message.fields.host : undefined
    expect([isReply, host]).toEqual([false, "web.1"])
  })
})

describe("decodeMessage refuses", () => {
  test("every truncation, and anything trailing", () => {
    const whole = fromHex(GREETING_HEX)
    for (let length = 0; length < whole.length; length++) {
      expect(errorOf(() => decodeMessage(SAMPLE, whole.subarray(0, length), "guest")).code).toBe("protocol")
    }
    expect(errorOf(() => decodeMessage(SAMPLE, concat(whole, Uint8Array.of(0)), "guest")).message).toContain(
      "trailing",
    )
  })

  test("an unknown id", () => {
    expect(refusalOf("93050080")).toBe("unknown message id 5")
  })

  test("the wrong side, by name", () => {
    expect(refusalOf(GREETING_HEX, "mvm")).toBe("GREET: not a message of the mvm side")
    expect(refusalOf(GREETING_HEX, "both")).toBe("GREET: not a message of the both side")
  })

  test("a message over its row's size before decoding it", () => {
    expect(refusalOf("930400" + "c1".repeat(20))).toBe("EMPTY: 23 bytes, at most 16")
  })

  test("unknown and missing fields, by name", () => {
    expect(refusalOf("93040081a16101")).toBe("EMPTY.a: unknown field")
    expect(refusalOf("93010080")).toBe("GREET.host: missing")
  })

  test("field names that mean something to every object", () => {
    expect(refusalOf("93040081a95f5f70726f746f5f5f80")).toStartWith("EMPTY: msgpack: ")
    expect(refusalOf("93040081a8746f537472696e67c0")).toStartWith("EMPTY: msgpack: ")
  })

  test("another shape than an array of three", () => {
    for (const hex of [
      "",
      "93",
      "920400",
      "9404008080",
      "80",
      "c0",
      "dc0003040080",
      "93cc040080",
      "93a1340080",
    ]) {
      expect(errorOf(() => decodeMessage(SAMPLE, fromHex(hex), "guest")).code).toBe("protocol")
    }
    expect(refusalOf("93040090")).toBe("EMPTY: expected a structure, got a list")
  })

  test("a request id that is no unsigned 32-bit number", () => {
    for (const id of ["ff", "c0", "a131", "d30000000100000000"]) {
      expect(refusalOf(`9304${id}80`)).toBe("EMPTY: request id is no unsigned 32-bit number")
    }
  })

  test("mutated messages with nothing but a protocol error", () => {
    const mutation = fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255) }), { minLength: 1, maxLength: 3 })
    fc.assert(
      fc.property(arbitraryMessage(SAMPLE), mutation, (message, changes) => {
        const payload = encodeMessage(SAMPLE, message.name, message.requestId, message.fields)
        for (const { at, byte } of changes) payload[at % payload.length] = byte
        expectTotal(SAMPLE, payload, ["guest", "mvm"])
      }),
      { seed: 9, numRuns: 2000 },
    )
  })
})

describe("encodeMessage refuses", () => {
  test("fields that a receiver would refuse, by name", () => {
    const error = errorOf(() => encodeMessage(SAMPLE, "GREET", 0, { ...GREETING, host: "a b" }))
    expect([error.code, error.message.split(":")[0]]).toEqual(["protocol", "GREET.host"])
  })

  test("a message over its row's size", () => {
    const names = Array.from({ length: 5 }, () => "n".repeat(64))
    const small = defineTable({ PROVE: row({ ...SAMPLE.rows.PROVE, maxBytes: 100 }) })
    expect(errorOf(() => encodeMessage(small, "PROVE", 0, { quotes: [], names })).message).toContain(
      "at most 100",
    )
  })

  test("a request id that does not fit", () => {
    for (const id of [-1, 2 ** 32, 1.5]) {
      expect(errorOf(() => encodeMessage(SAMPLE, "EMPTY", id, {})).code).toBe("protocol")
    }
  })
})

describe("defineTable", () => {
  test("refuses an id used twice and one over a byte", () => {
    const spec = { from: "guest", since: 1, maxBytes: 64, fields: { n: u8 } }
    expect(() => defineTable({ A: row({ id: 1, ...spec }), B: row({ id: 1, ...spec }) })).toThrow(
      "belongs to A",
    )
    expect(() => defineTable({ A: row({ id: 256, ...spec }) })).toThrow(TypeError)
  })

  test("describes its rows in the order of their ids", () => {
    const rows = describeTable(SAMPLE)
    expect(rows.map(({ id }) => id)).toEqual([1, 2, 4, 200])
    expect(rows[0]).toEqual({
      id: 1,
      name: "GREET",
      from: "guest",
      since: 1,
      maxBytes: 256,
      purpose: "opens the conversation",
      fields: ["nonce: bytes(8)", "version: u8", "host: name(64)", "note?: text(20)"],
    })
  })
})
