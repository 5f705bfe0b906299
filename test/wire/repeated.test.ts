import { describe, expect, test } from "bun:test"
import { Repeated } from "../../src/wire/repeated.ts"

describe("a message that comes again", () => {
  const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

  test("in the same bytes is not decoded again", () => {
    const repeated = new Repeated<{ readonly text: string }>()
    const first = repeated.decoded(bytes(20, 1), () => ({ text: "first" }))
    expect(repeated.decoded(bytes(20, 1), () => ({ text: "second" }))).toBe(first)
  })

  test.each([
    ["another value", bytes(20, 2)],
    ["a byte more", bytes(21, 1)],
    ["a byte less", bytes(19, 1)],
  ])("in other bytes is decoded: %s", (_, other) => {
    const repeated = new Repeated<number>()
    repeated.decoded(bytes(20, 1), () => 1)
    expect(repeated.decoded(other, () => 2)).toBe(2)
  })

  test("is compared with what came, not with the buffer it came in", () => {
    const repeated = new Repeated<number>()
    const reused = bytes(20, 1)
    repeated.decoded(reused, () => 1)
    reused.fill(9)
    expect(repeated.decoded(reused, () => 2)).toBe(2)
  })

  test("that is refused leaves the last one in place", () => {
    const repeated = new Repeated<number>()
    repeated.decoded(bytes(20, 1), () => 1)
    const refuse = (): number => {
      throw new Error("refused")
    }
    expect(() => repeated.decoded(bytes(20, 2), refuse)).toThrow("refused")
    expect(() => repeated.decoded(bytes(20, 2), refuse)).toThrow("refused")
    expect(repeated.decoded(bytes(20, 1), () => 3)).toBe(1)
  })

  test("is not kept when it is long", () => {
    const repeated = new Repeated<number>()
    repeated.decoded(bytes(65, 1), () => 1)
    expect(repeated.decoded(bytes(65, 1), () => 2)).toBe(2)
  })
})

test("what is sent again is encoded once, as long as it is the same object", () => {
  const repeated = new Repeated<number>()
  const fields = { channelId: new Uint8Array(16) }
  const payload = repeated.encoded(fields, () => new Uint8Array(3))
  expect(repeated.encoded(fields, () => new Uint8Array(4))).toBe(payload)
  expect(repeated.encoded({ ...fields }, () => new Uint8Array(4))).toHaveLength(4)
})
