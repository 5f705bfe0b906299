/**
 * @module test/bench/wire
 *
 * Prints what a message costs on its way through the wire layer: `bun test/bench/wire.ts`.
 */

import { fromHex } from "../../src/lib/bytes.ts"
import { encodeFrame, FrameReader } from "../../src/wire/frame.ts"
import { FrameAuthenticator } from "../../src/wire/link-auth.ts"
import { decodeMessage, encodeMessage } from "../../src/wire/table.ts"
import { SAMPLE } from "../wire/sample-table.ts"

const ROUNDS = 100_000

const keys = { sendKey: new Uint8Array(32).fill(1), receiveKey: new Uint8Array(32).fill(2) }
const epoch = new Uint8Array(16)
const sender = new FrameAuthenticator({ ...keys, epoch })
const receiver = new FrameAuthenticator({ sendKey: keys.receiveKey, receiveKey: keys.sendKey, epoch })
const reader = new FrameReader()
const fields = { nonce: fromHex("0102030405060708"), version: 1, host: "web.1" }
const payload = encodeMessage(SAMPLE, "GREET", 1, fields)
const frame = encodeFrame(payload)

measure("encodeMessage", () => encodeMessage(SAMPLE, "GREET", 1, fields))
measure("decodeMessage", () => decodeMessage(SAMPLE, payload, "guest"))
measure("seal and open", () => receiver.open(sender.seal(payload)))
measure("encodeFrame", () => encodeFrame(payload))
measure("FrameReader.push", () => reader.push(frame))
measure("all of it, both ends", () => {
  const sealed = encodeFrame(sender.seal(encodeMessage(SAMPLE, "GREET", 1, fields)), { auth: true })
  for (const { payload } of reader.push(sealed)) decodeMessage(SAMPLE, receiver.open(payload), "guest")
})

function measure(what: string, act: () => unknown): void {
  for (let i = 0; i < ROUNDS / 2; i++) act()
  const start = performance.now()
  for (let i = 0; i < ROUNDS; i++) act()
  const microseconds = ((performance.now() - start) * 1000) / ROUNDS
  process.stdout.write(`${what.padEnd(24)} ${microseconds.toFixed(2)} us\n`)
}
