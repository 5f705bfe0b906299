import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { COPY_MESSAGES } from "../../src/guest/copy/messages.ts"
import { MAX_SEALED_MESSAGE_BYTES } from "../../src/wire/link-auth.ts"
import { LOCAL_MESSAGES } from "../../src/wire/local-messages.ts"
import { MESSAGES } from "../../src/wire/messages.ts"
import { decodeMessage, describeTable, encodeMessage, type Table } from "../../src/wire/table.ts"
import { arbitraryMessage } from "./arbitrary.ts"
import { expectTotal } from "./expect-total.ts"
import { greatestMessageBytes } from "./greatest-bytes.ts"

const TABLES: readonly { title: string; table: Table; sides: readonly [string, string] }[] = [
  { title: "the link protocol", table: MESSAGES, sides: ["guest", "mvm"] },
  { title: "the agent's local protocol", table: LOCAL_MESSAGES, sides: ["client", "agent"] },
  { title: "the copy protocol", table: COPY_MESSAGES, sides: ["sender", "receiver"] },
]

for (const { title, table, sides } of TABLES) {
  describe(title, () => {
    test("round trips messages of every row", () => {
      fc.assert(
        fc.property(arbitraryMessage(table), (message) => {
          const payload = encodeMessage(table, message.name, message.requestId, message.fields)
          const from = table.rows[message.name]!.from
          const side = from === "both" ? sides[0] : from
          expect(decodeMessage(table, payload, side)).toEqual(message)
          expect(payload.length).toBeLessThanOrEqual(greatestMessageBytes(table.rows[message.name]!.fields))
        }),
        { seed: 11, numRuns: 300 },
      )
    })

    test("answers mutated messages with nothing but a protocol error", () => {
      const mutation = fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255) }), {
        minLength: 1,
        maxLength: 3,
      })
      fc.assert(
        fc.property(arbitraryMessage(table), mutation, (message, changes) => {
          const payload = encodeMessage(table, message.name, message.requestId, message.fields)
          for (const { at, byte } of changes) payload[at % payload.length] = byte
          expectTotal(table, payload, sides)
        }),
        { seed: 12, numRuns: 1000 },
      )
    })

    test("names its own sides alone", () => {
      for (const { from } of describeTable(table)) expect([...sides, "both"]).toContain(from)
    })

    for (const { name, maxBytes } of describeTable(table)) {
      test(`${name} has room for its fields and fits a frame`, () => {
        expect(greatestMessageBytes(table.rows[name]!.fields)).toBeLessThanOrEqual(maxBytes)
        expect(maxBytes).toBeLessThanOrEqual(MAX_SEALED_MESSAGE_BYTES)
      })
    }
  })
}
