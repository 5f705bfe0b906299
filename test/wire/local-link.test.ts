import { expect, test } from "bun:test"
import { LocalLink, type LocalMessage } from "../../src/wire/local-link.ts"

function agentEnd(): { heard: LocalMessage<"client">[]; receive(bytes: Uint8Array): void } {
  const heard: LocalMessage<"client">[] = []
  const link = new LocalLink(
    "agent",
    () => {},
    (message) => heard.push(message),
  )
  return { heard, receive: (bytes) => link.receive(bytes) }
}

function written(say: (link: LocalLink<"client">) => void): Uint8Array {
  const parts: Uint8Array[] = []
  const link = new LocalLink(
    "client",
    (bytes) => parts.push(bytes),
    () => {},
  )
  say(link)
  return Buffer.concat(parts)
}

const KICK = { name: "KICK", requestId: 0, fields: {} } as const

test("a kick is the same message however it is sent and in whatever pieces it comes", () => {
  const bytes = written((link) => link.kick())
  expect(bytes).toEqual(written((link) => link.send("KICK", {})))
  const { heard, receive } = agentEnd()
  receive(bytes)
  for (const byte of bytes) receive(Uint8Array.of(byte))
  receive(Buffer.concat([bytes, bytes]))
  expect(heard).toEqual([KICK, KICK, KICK, KICK])
})

test("a kick inside another message is a part of it", () => {
  const kick = written((link) => link.kick())
  const bytes = written((link) => link.send("OFFER", { ...OFFER, share: new Uint8Array(32).fill(7) }))
  const at = Buffer.from(bytes).indexOf(new Uint8Array(32).fill(7))
  const forged = bytes.slice()
  forged.set(kick, at)
  const { heard, receive } = agentEnd()
  receive(forged.subarray(0, at))
  // The rest begins with what would be a kick; the frame it lies in no longer has its CRC, and ends the stream.
  receive(forged.subarray(at, at + kick.length))
  expect(() => receive(forged.subarray(at + kick.length))).toThrow("no frame")
  expect(heard.filter(({ name }) => name === "OFFER")).toEqual([])
})

const OFFER = { service: "pipe", source: undefined, role: "receive" } as const
