import { expect, test } from "bun:test"
import { channelKeys, nextKey } from "../../src/channel/keys.ts"
import {
  acceptMessage,
  finMessage,
  openMessage,
  receiptMessage,
  requestMessage,
  transcriptHash,
} from "../../src/channel/transcript.ts"
import { toHex, utf8 } from "../../src/lib/bytes.ts"
import { hmacSha256, random, sha256, x25519Generate } from "../../src/lib/crypto.ts"
import { encodeFields } from "../../src/lib/encoding.ts"
import { MvmError } from "../../src/lib/errors.ts"

const END = {
  channelId: random(16),
  direction: 0,
  lengthBytes: 1000,
  records: 3,
  digest: random(32),
}

test("no two messages that are signed have the same bytes, whatever their fields", () => {
  const transcript = random(32)
  const messages = [
    requestMessage({
      laddress: random(16),
      targetUuid: random(16),
      service: "s",
      share: random(32),
      nonce: random(32),
      epoch: random(16),
      program: { path: "/p", digest: random(32), uid: 0 },
    }),
    acceptMessage(transcript),
    openMessage(transcript, random(64)),
    finMessage(END),
    receiptMessage(END),
    finMessage({ ...END, direction: 1 }),
    finMessage({ ...END, content: END.digest }),
  ]
  expect(new Set(messages.map(toHex)).size).toBe(messages.length)
  // TPM_GENERATED_VALUE starts every TPMS_ATTEST.
  for (const message of messages) expect(toHex(message.subarray(0, 4))).not.toBe("ff544347")
})

test("a change of any part changes the transcript", () => {
  const base = {
    decision: utf8("decision"),
    laddress: random(16),
    service: "s",
    askerShare: random(32),
    answererShare: random(32),
  }
  const variants = [
    base,
    { ...base, decision: utf8("decisioN") },
    { ...base, laddress: random(16) },
    { ...base, service: "t" },
    { ...base, askerShare: base.answererShare, answererShare: base.askerShare },
    { ...base, answererShare: random(32) },
  ]
  expect(new Set(variants.map((variant) => toHex(transcriptHash(variant)))).size).toBe(variants.length)
  expect(toHex(transcriptHash(base))).toBe(
    toHex(
      sha256(
        encodeFields("mvm transcript v1", [
          base.decision,
          base.laddress,
          base.service,
          base.askerShare,
          base.answererShare,
        ]),
      ),
    ),
  )
})

test("both ends derive the same two keys, and another transcript gives others", () => {
  const [a, b] = [x25519Generate(), x25519Generate()]
  const transcript = random(32)
  const ours = channelKeys(a.privateKey, b.publicKey, transcript)
  expect(channelKeys(b.privateKey, a.publicKey, transcript)).toEqual(ours)
  expect(ours.askerToAnswerer).not.toEqual(ours.answererToAsker)
  expect(channelKeys(a.privateKey, b.publicKey, random(32)).askerToAnswerer).not.toEqual(ours.askerToAnswerer)
})

test("a low-order share gives no keys", () => {
  try {
    channelKeys(x25519Generate().privateKey, new Uint8Array(32), random(32))
    expect.unreachable()
  } catch (error) {
    expect((error as MvmError).code).toBe("protocol")
  }
})

test("the next key is HKDF-Expand(K, rekey), computed here by its definition", () => {
  const key = random(32)
  expect(nextKey(key)).toEqual(hmacSha256(key, utf8("rekey"), new Uint8Array([1])))
})
