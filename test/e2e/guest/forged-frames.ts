/**
 * @module test/e2e/guest/forged-frames
 *
 * Bytes that an attacker has others carry: whole frames that would end, revoke or fake a channel and a link, were they
 * believed; with a seal that is none, without one, and behind a false beginning that a reader would look past.
 */

import { concat, fromHex } from "../../../src/lib/bytes.ts"
import { random } from "../../../src/lib/crypto.ts"
import { encodeFrame } from "../../../src/wire/frame.ts"
import { SEAL_BYTES } from "../../../src/wire/link-auth.ts"
import { MESSAGES } from "../../../src/wire/messages.ts"
import { encodeMessage } from "../../../src/wire/table.ts"

/** A header that says 60,000 bytes follow. */
const TORN = fromHex("4d564d3101000000" + "0000ea60" + "00000000")
const ROUNDS = 12

/** @param channelId 16 bytes, of a channel between others */
export function forgedFrames(channelId: Uint8Array): Uint8Array {
  const end = {
    channelId,
    direction: 0,
    lengthBytes: 1,
    records: 1,
    digest: random(32),
    signature: random(64),
  }
  const messages = [
    encodeMessage(MESSAGES, "CLOSE", 0, { channelId }),
    encodeMessage(MESSAGES, "ABORT", 0, { channelId, code: "revoked", message: "forged" }),
    encodeMessage(MESSAGES, "REVOKE", 0, { channelId, message: "forged" }),
    encodeMessage(MESSAGES, "FIN", 0, end),
    encodeMessage(MESSAGES, "RECEIPT", 7, end),
    encodeMessage(MESSAGES, "STOP", 0, { reason: "forged" }),
    encodeMessage(MESSAGES, "DONE", 1, {}),
    encodeMessage(MESSAGES, "POKE", 0, {}),
  ]
  const round = (): Uint8Array[] =>
    messages.flatMap((message) => [
      encodeFrame(message),
      encodeFrame(concat(random(SEAL_BYTES), message), { auth: true }),
    ])
  return concat(...Array.from({ length: ROUNDS }, () => [TORN, ...round()]).flat())
}
