/** @module test/guest/copy/wire */

import { describe, expect, test } from "bun:test"
import { ByteInput } from "../../../src/guest/copy/byte-input.ts"
import { CopyWire, receiveRequest } from "../../../src/guest/copy/wire.ts"
import { COPY_MESSAGES, MAX_FRAME_BYTES } from "../../../src/guest/copy/messages.ts"
import { encodeMessage } from "../../../src/wire/table.ts"
import { noise } from "./trees.ts"
import { streamPair } from "./stream-pair.ts"

/** An input of these bytes in chunks of `size`. */
function inputOf(bytes: Uint8Array, size: number): ByteInput {
  let at = 0
  return new ByteInput({
    read: async () => {
      if (at >= bytes.length) return null
      at += size
      return bytes.slice(at - size, at)
    },
  })
}

function frame(payload: Uint8Array): Uint8Array {
  const prefix = new Uint8Array(4)
  new DataView(prefix.buffer).setUint32(0, payload.length)
  return Buffer.concat([prefix, payload])
}

const REQUEST = {
  version: 1,
  direction: "pull",
  paths: [Buffer.from("a/b"), Buffer.from("c")],
  recursive: true,
  checksum: false,
  totals: true,
} as const

describe("a message of a copy", () => {
  test.each([1, 2, 3, 7, 1000])("is read from chunks of %d bytes", async (size) => {
    const bytes = frame(encodeMessage(COPY_MESSAGES, "REQUEST", 0, REQUEST))
    expect(await receiveRequest(inputOf(bytes, size))).toMatchObject({ direction: "pull", recursive: true })
  })

  test("cut off anywhere is truncated; nothing at all is the end", async () => {
    const bytes = frame(encodeMessage(COPY_MESSAGES, "REQUEST", 0, REQUEST))
    for (let length = 0; length < bytes.length; length += 1) {
      await expect(receiveRequest(inputOf(bytes.subarray(0, length), 5))).rejects.toMatchObject({
        code: "truncated",
      })
      const wire = new CopyWire(streamPair().a, "receiver", inputOf(bytes.subarray(0, length), 5))
      if (length === 0) expect(await wire.receive()).toBeNull()
      else await expect(wire.receive()).rejects.toMatchObject({ code: "truncated" })
    }
  })

  test.each([MAX_FRAME_BYTES + 1, 0xffff_ffff])(
    "of %d bytes is refused before it is waited for",
    async (length) => {
      const prefix = new Uint8Array(4)
      new DataView(prefix.buffer).setUint32(0, length)
      await expect(receiveRequest(inputOf(prefix, 4))).rejects.toMatchObject({ code: "protocol" })
    },
  )

  test("other than a request does not begin a copy", async () => {
    const bytes = frame(encodeMessage(COPY_MESSAGES, "FINISH", 0, {}))
    await expect(receiveRequest(inputOf(bytes, 4))).rejects.toMatchObject({
      code: "protocol",
      message: "FINISH before REQUEST",
    })
  })

  test.each([0, 1, 16 * 1024, 16 * 1024 + 1, 1 << 20])(
    "carries %d bytes of content behind it",
    async (length) => {
      const { a, b } = streamPair()
      const sender = new CopyWire(a, "sender")
      const receiver = new CopyWire(b, "receiver")
      const bytes = noise(length)
      const kept = bytes.slice()
      const sending = (async () => {
        sender.send("LEAVE", {})
        await sender.sendContent(bytes)
        // It may be used again.
        bytes.fill(0)
        sender.send("FINISH", {})
        await sender.end()
      })()
      expect((await receiver.receive())?.name).toBe("LEAVE")
      expect(await receiver.receive()).toMatchObject({ name: "DATA", fields: { lengthBytes: length } })
      const pieces: Uint8Array[] = []
      await receiver.content(length, (piece) => pieces.push(piece))
      expect(Buffer.concat(pieces).equals(kept)).toBe(true)
      expect((await receiver.receive())?.name).toBe("FINISH")
      expect(await receiver.receive()).toBeNull()
      await sending
    },
  )

  test("travels with others that were said in the same turn", async () => {
    const { a, b, fromA } = streamPair()
    let writes = 0
    fromA.tap = (chunk) => {
      writes += 1
      return chunk
    }
    const sender = new CopyWire(a, "sender")
    for (let count = 0; count < 100; count += 1) sender.send("LEAVE", {})
    const receiver = new CopyWire(b, "receiver")
    for (let count = 0; count < 100; count += 1) expect((await receiver.receive())?.name).toBe("LEAVE")
    expect(writes).toBe(1)
  })
})
