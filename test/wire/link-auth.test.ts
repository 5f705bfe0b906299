import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { fromHex, utf8 } from "../../src/lib/bytes.ts"
import { encodeFrame } from "../../src/wire/frame.ts"
import { FrameAuthenticator, MAX_SEALED_MESSAGE_BYTES } from "../../src/wire/link-auth.ts"
import { errorOf } from "./error-of.ts"

const KEY_A = Uint8Array.from({ length: 32 }, (_, i) => i)
const KEY_B = Uint8Array.from({ length: 32 }, (_, i) => 32 + i)
const EPOCH = Uint8Array.from({ length: 16 }, (_, i) => 0xa0 + i)

// Made by Python's struct, hmac and hashlib: the empty message, then "hello".
const GOLDEN = [
  "0000000000000000eb45ac9478a896da414a34e9c9de9b10713ed76f3bba83afefcd80918a930abe",
  "000000000000000147a77a16d4fe486070fadda4209b87ce086ecbad3488920acf881192023635e868656c6c6f",
]

function ends(epoch = EPOCH): [FrameAuthenticator, FrameAuthenticator] {
  return [
    new FrameAuthenticator({ sendKey: KEY_A, receiveKey: KEY_B, epoch }),
    new FrameAuthenticator({ sendKey: KEY_B, receiveKey: KEY_A, epoch }),
  ]
}

function expectRefused(act: () => unknown): void {
  expect(errorOf(act).code).toBe("frame")
}

describe("FrameAuthenticator", () => {
  test("seals to the published bytes and opens them", () => {
    const [a, b] = ends()
    expect(["", "hello"].map((message) => a.seal(utf8(message)).toHex())).toEqual(GOLDEN)
    expect(GOLDEN.map((payload) => b.open(fromHex(payload)))).toEqual([utf8(""), utf8("hello")])
  })

  test("opens what the other end sealed, in both directions", () => {
    const [a, b] = ends()
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (message, fromA) => {
        const [sender, receiver] = fromA ? [a, b] : [b, a]
        expect(receiver.open(sender.seal(message))).toEqual(message)
      }),
      { seed: 10, numRuns: 200 },
    )
  })

  test("fills a frame to the last byte and refuses one more", () => {
    const [a, b] = ends()
    const sealed = a.seal(new Uint8Array(MAX_SEALED_MESSAGE_BYTES))
    expect(encodeFrame(sealed, { auth: true }).length).toBe(65536)
    expect(b.open(sealed).length).toBe(65480)
    expectRefused(() => a.seal(new Uint8Array(MAX_SEALED_MESSAGE_BYTES + 1)))
    expect(b.open(a.seal(utf8("next")))).toEqual(utf8("next"))
  })

  test("refuses every changed bit and every truncation, and stays as it was", () => {
    const [a, b] = ends()
    const sealed = a.seal(utf8("hello"))
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = Uint8Array.from(sealed)
      changed[bit >> 3]! ^= 1 << (bit & 7)
      expectRefused(() => b.open(changed))
    }
    for (let length = 0; length < sealed.length; length++)
      expectRefused(() => b.open(sealed.subarray(0, length)))
    expectRefused(() => b.open(Uint8Array.of(...sealed, 0)))
    expect(b.open(sealed)).toEqual(utf8("hello"))
  })

  test("refuses a repeated frame, one too early and one it sent itself", () => {
    const [a, b] = ends()
    const [first, second, third] = [a.seal(utf8("1")), a.seal(utf8("2")), a.seal(utf8("3"))]
    b.open(first)
    expectRefused(() => b.open(first))
    expectRefused(() => b.open(third))
    b.open(second)
    b.open(third)
    expectRefused(() => a.open(first))
  })

  test("refuses a frame of another epoch under the same keys", () => {
    const [a] = ends()
    const [, b] = ends(new Uint8Array(16))
    expectRefused(() => b.open(a.seal(utf8("hello"))))
  })

  test("refuses one key in both directions and wrong lengths", () => {
    const make = (sendKey: Uint8Array, receiveKey: Uint8Array, epoch: Uint8Array): (() => unknown) => {
      return () => new FrameAuthenticator({ sendKey, receiveKey, epoch })
    }
    expect(make(KEY_A, KEY_A, EPOCH)).toThrow(RangeError)
    expect(make(KEY_A.subarray(1), KEY_B, EPOCH)).toThrow(RangeError)
    expect(make(KEY_A, new Uint8Array(0), EPOCH)).toThrow(RangeError)
    expect(make(KEY_A, KEY_B, EPOCH.subarray(1))).toThrow(RangeError)
  })
})
