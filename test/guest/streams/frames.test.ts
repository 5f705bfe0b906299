import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { STREAM_FRAMES, decodeFrame, encodeFrame } from "../../../src/guest/streams/frames.ts"
import { toHex } from "../../../src/lib/bytes.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { describeTable, encodeMessage } from "../../../src/wire/table.ts"
import { arbitraryMessage } from "../../wire/arbitrary.ts"
import { expectTotal } from "../../wire/expect-total.ts"
import { greatestMessageBytes } from "../../wire/greatest-bytes.ts"

const SIDES = ["asker", "answerer"] as const

/** By hand, from the MessagePack specification: [id, 0, {fields}]. */
const GOLDEN = {
  "93010081a772657175657374c4026869": () => encodeFrame("OPEN", { request: new Uint8Array([0x68, 0x69]) }),
  "93020081a56279746573ce00040000": () => encodeFrame("CREDIT", { bytes: 262144 }),
  "93030080": () => encodeFrame("END", {}),
  "93060080": () => encodeFrame("LEAVE", {}),
  "93040082a4636f6465a473696e6ba76d657373616765a26e6f": () =>
    encodeFrame("STOP", { code: "sink", message: "no" }),
  "93050082a4636f6465a473696e6ba76d657373616765a26e6f": () =>
    encodeFrame("RESET", { code: "sink", message: "no" }),
}

describe("frames about streams", () => {
  for (const [hex, encode] of Object.entries(GOLDEN)) {
    test(`${hex} is what is sent, and no part of it is taken for all`, () => {
      const payload = encode()
      expect(toHex(payload)).toBe(hex)
      const from = hex === "93060080" ? "answerer" : "asker"
      expect(decodeFrame(payload, from).requestId).toBe(0)
      for (let length = 0; length < payload.length; length++) {
        expect(() => decodeFrame(payload.subarray(0, length), from)).toThrow(MvmError)
      }
      expect(() => decodeFrame(new Uint8Array([...payload, 0]), from)).toThrow(MvmError)
    })
  }

  test("only the asker opens streams", () => {
    expect(() => decodeFrame(encodeFrame("OPEN", { request: new Uint8Array(0) }), "answerer")).toThrow(
      MvmError,
    )
  })

  test("mutated frames are answered with nothing but a protocol error", () => {
    const mutation = fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255) }), { minLength: 1, maxLength: 3 })
    fc.assert(
      fc.property(arbitraryMessage(STREAM_FRAMES), mutation, (message, changes) => {
        const payload = encodeMessage(STREAM_FRAMES, message.name, message.requestId, message.fields)
        for (const { at, byte } of changes) payload[at % payload.length] = byte
        expectTotal(STREAM_FRAMES, payload, SIDES)
      }),
      { seed: 21, numRuns: 1000 },
    )
  })

  for (const { name, maxBytes } of describeTable(STREAM_FRAMES)) {
    test(`${name} has room for its fields`, () => {
      const { fields } = STREAM_FRAMES.rows[name as keyof (typeof STREAM_FRAMES)["rows"]]
      expect(greatestMessageBytes(fields)).toBeLessThanOrEqual(maxBytes)
    })
  }
})
