import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { concat, fromHex, utf8 } from "../../src/lib/bytes.ts"
import { encodeFrame, FrameReader, type Frame } from "../../src/wire/frame.ts"
import { errorOf } from "./error-of.ts"

// Made by Python's struct and zlib; the constants are typed again on purpose.
const GOLDEN = [
  { payload: "", auth: false, frame: "4d564d310100000000000000dbb63f09" },
  { payload: "68656c6c6f", auth: false, frame: "4d564d3101000000000000" + "05609a23c568656c6c6f" },
  { payload: "93010280", auth: true, frame: "4d564d31010100000000000495528c8693010280" },
]
const HEADER = 16
const MAX_PAYLOAD = 65536 - 16

const hello = encodeFrame(utf8("hello"))

function hexOf(frames: Iterable<Frame>): string[] {
  return [...frames].map(({ payload }) => payload.toHex())
}

/** A frame whose header says `payloadBytes`, with a wrong CRC. */
function falseHeader(payloadBytes: number): Uint8Array {
  const header = Buffer.alloc(HEADER)
  header.write("MVM1")
  header[4] = 1
  header.writeUInt32BE(payloadBytes, 8)
  return header
}

describe("encodeFrame", () => {
  for (const { payload, auth, frame } of GOLDEN) {
    test(`gives the published bytes for payload "${payload}"`, () => {
      expect(encodeFrame(fromHex(payload), { auth }).toHex()).toBe(frame)
    })
  }

  test("takes a payload of 65520 bytes and refuses one more", () => {
    expect(encodeFrame(new Uint8Array(MAX_PAYLOAD)).length).toBe(65536)
    expect(errorOf(() => encodeFrame(new Uint8Array(MAX_PAYLOAD + 1))).code).toBe("frame")
  })
})

describe("FrameReader", () => {
  test("reads golden frames with their flag", () => {
    const reader = new FrameReader()
    for (const { payload, auth, frame } of GOLDEN) {
      const read = [...reader.push(fromHex(frame))]
      expect(read).toEqual([{ payload: fromHex(payload), authenticated: auth }])
    }
    expect(reader.droppedBytes).toBe(0)
  })

  test("returns what was framed, however the stream is cut", () => {
    const payloads = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 })
    const cuts = fc.infiniteStream(fc.integer({ min: 1, max: 400 }))
    fc.assert(
      fc.property(payloads, cuts, (expected, sizes) => {
        const stream = concat(...expected.map((payload) => encodeFrame(payload)))
        const reader = new FrameReader()
        const read: Frame[] = []
        for (let at = 0; at < stream.length;) {
          const size = sizes.next().value
          read.push(...reader.push(stream.subarray(at, at + size)))
          at += size
        }
        expect(hexOf(read)).toEqual(expected.map((payload) => payload.toHex()))
        expect(reader.droppedBytes + reader.pendingBytes).toBe(0)
      }),
      { seed: 1, numRuns: 100 },
    )
  })

  test("reads the largest frame byte by byte", () => {
    const payload = new Uint8Array(MAX_PAYLOAD).map((_, i) => i)
    const reader = new FrameReader()
    const read: Frame[] = []
    for (const byte of encodeFrame(payload)) read.push(...reader.push(Uint8Array.of(byte)))
    expect(read.length).toBe(1)
    expect(Buffer.compare(read[0]!.payload, payload)).toBe(0)
  })

  test("gives no frame for any truncation, and the frame once the rest comes", () => {
    for (let length = 0; length < hello.length; length++) {
      const reader = new FrameReader()
      expect([...reader.push(hello.subarray(0, length))]).toEqual([])
      expect(reader.pendingBytes).toBe(length)
      expect(hexOf(reader.push(hello.subarray(length)))).toEqual([utf8("hello").toHex()])
    }
  })

  test("payloads do not alias the pushed bytes", () => {
    const chunk = Uint8Array.from(hello)
    const [frame] = new FrameReader().push(chunk)
    chunk.fill(0)
    expect(frame?.payload).toEqual(utf8("hello"))
    expect(frame?.payload.buffer.byteLength).toBe(5)
  })

  test("finds frames among garbage that resembles the magic", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("M", "V", "1", "MV", "MVM", "xx"), { maxLength: 20 }), (parts) => {
        const garbage = parts.join("").replaceAll("MVM1", "MVM-")
        const reader = new FrameReader()
        const stream = concat(utf8(garbage), hello, utf8(garbage), hello)
        const read: Frame[] = []
        for (const byte of stream) read.push(...reader.push(Uint8Array.of(byte)))
        expect(read.length).toBe(2)
        expect(reader.droppedBytes).toBe(2 * garbage.length)
      }),
      { seed: 2, numRuns: 200 },
    )
  })

  test("refuses any changed byte of the header or payload, and reads the frame behind it", () => {
    for (let at = 0; at < hello.length; at++) {
      for (const bit of [1, 0x80]) {
        const damaged = Uint8Array.from(hello)
        damaged[at]! ^= bit
        const reader = new FrameReader()
        const read = [...reader.push(damaged), ...reader.push(hello), ...reader.abandon()]
        expect(hexOf(read)).toEqual([utf8("hello").toHex()])
        expect(reader.droppedBytes).toBe(hello.length)
      }
    }
  })

  test("refuses a length over 64 KiB at once, without waiting for the bytes", () => {
    for (const length of [MAX_PAYLOAD + 1, 0x7fffffff, 0xffffffff]) {
      const reader = new FrameReader()
      expect(reader.push(concat(falseHeader(length), hello)).length).toBe(1)
      expect(reader.droppedBytes).toBe(HEADER)
    }
  })

  test("recovers the frames behind a torn one as soon as its length is there", () => {
    const torn = encodeFrame(new Uint8Array(1000)).subarray(0, 500)
    const reader = new FrameReader()
    const behind = concat(...Array.from({ length: 60 }, () => hello))
    expect(reader.push(concat(torn, behind)).length).toBe(60)
    expect(reader.droppedBytes).toBe(torn.length)
  })

  test("gives up a torn frame on request and returns the frames behind it", () => {
    const torn = encodeFrame(new Uint8Array(60000)).subarray(0, 500)
    const reader = new FrameReader()
    expect(reader.push(concat(torn, hello, hello.subarray(0, 7)))).toEqual([])
    expect(reader.abandon().length).toBe(1)
    expect(reader.pendingBytes).toBe(0)
    expect(reader.push(hello).length).toBe(1)
  })

  test("holds less than 64 KiB of a hostile stream and goes on afterwards", () => {
    const nested = concat(...Array.from({ length: 16384 }, () => falseHeader(60000)))
    const reader = new FrameReader()
    for (let at = 0; at < nested.length; at += 8192) {
      expect([...reader.push(nested.subarray(at, at + 8192))]).toEqual([])
      expect(reader.pendingBytes).toBeLessThan(65536)
    }
    reader.abandon()
    expect(reader.pendingBytes).toBe(0)
    expect(reader.droppedBytes).toBe(nested.length)
    expect(reader.push(hello).length).toBe(1)
  })

  test("never throws and never invents a frame on random bytes", () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.constant(utf8("MVM1")),
      fc.integer({ min: 0, max: 70000 }).map(falseHeader),
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const reader = new FrameReader()
        let pushed = 0
        for (const bytes of pieces) {
          pushed += bytes.length
          expect([...reader.push(bytes)]).toEqual([])
          expect(reader.droppedBytes + reader.pendingBytes).toBe(pushed)
        }
      }),
      { seed: 3, numRuns: 500 },
    )
  })
})
