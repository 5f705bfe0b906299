import { expect, test } from "bun:test"
import { createCipheriv } from "node:crypto"
import { AEAD_AES_256_GCM, CipherSuite, KDF_HKDF_SHA256, KEM_DHKEM_P256_HKDF_SHA256 } from "hpke"
import { concat, fromHex, toHex, utf8 } from "../../src/lib/bytes.ts"
import { p256Ecdh, p256Generate, p256PublicKey, type KeyPair } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import {
  AES_256_GCM,
  HpkeContext,
  hpkeOpen,
  hpkeSeal,
  hpkeSetupRecipient,
  hpkeSetupSender,
  kemSharedSecret,
  keySchedule,
} from "../../src/tcb/hpke.ts"
import rfc9180 from "../vectors/hpke-rfc9180.json"

const suite = new CipherSuite(KEM_DHKEM_P256_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM)

/** Of the vectors' encryptions. @spec RFC 9180 appendix A */
const SEQUENCES = [0, 1, 2, 4, 255, 256]

/** By RFC 9180's number of the AEAD. */
const KEY_BYTES: Readonly<Record<number, number>> = { 1: 16, 2: 32 }

function recipientOf(pair: KeyPair) {
  return {
    recipientPublic65: pair.publicKey,
    zgen: async (point: Uint8Array) => p256Ecdh(pair.privateKey, point),
  }
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise
  } catch (error) {
    return error instanceof MvmError ? error.code : `not ours: ${error}`
  }
  return "none"
}

test("encapsulation, key schedule and 12 encryptions agree with RFC 9180's vectors for P-256 in base mode", () => {
  let encryptions = 0
  for (const vector of rfc9180.vectors) {
    const [skE, skR] = [fromHex(vector.skEm), fromHex(vector.skRm)]
    const [enc, pkR] = [fromHex(vector.enc), fromHex(vector.pkRm)]
    const keyBytes = KEY_BYTES[vector.aead_id]!
    expect(toHex(p256PublicKey(skE))).toBe(vector.enc)
    expect(toHex(p256PublicKey(skR))).toBe(vector.pkRm)
    for (const dh of [p256Ecdh(skE, pkR), p256Ecdh(skR, enc)]) {
      const shared = kemSharedSecret(dh, enc, pkR)
      expect(toHex(shared)).toBe(vector.shared_secret)
      const { key, baseNonce } = keySchedule(shared, fromHex(vector.info), { id: vector.aead_id, keyBytes })
      expect(toHex(key)).toBe(vector.key)
      expect(toHex(baseNonce)).toBe(vector.base_nonce)
    }
    for (const { aad, nonce, pt, ct } of vector.encryptions) {
      const cipher = createCipheriv(
        `aes-${keyBytes * 8}-gcm` as "aes-256-gcm",
        fromHex(vector.key),
        fromHex(nonce),
      )
      cipher.setAAD(fromHex(aad))
      const sealed = Buffer.concat([cipher.update(fromHex(pt)), cipher.final(), cipher.getAuthTag()])
      expect(sealed.toString("hex")).toBe(ct)
      if (keyBytes !== AES_256_GCM.keyBytes) continue
      const context = new HpkeContext({ key: fromHex(vector.key), baseNonce: fromHex(vector.base_nonce) })
      const sequence = SEQUENCES[encryptions]!
      expect(toHex(context.seal(sequence, fromHex(aad), fromHex(pt)))).toBe(ct)
      expect(toHex(context.open(sequence, fromHex(aad), fromHex(ct)))).toBe(pt)
      encryptions += 1
    }
  }
  expect(rfc9180.vectors.map(({ aead_id }) => aead_id)).toEqual([1, AES_256_GCM.id])
  expect(encryptions).toBe(6)
})

test("opens what an independent implementation sealed with the same suite", async () => {
  const pair = p256Generate()
  const publicKey = await suite.DeserializePublicKey(pair.publicKey)
  for (const length of [0, 1, 16, 100, 1000]) {
    const plaintext = new Uint8Array(length).fill(length)
    const info = utf8(`info ${length}`)
    const { encapsulatedSecret, ciphertext } = await suite.Seal(publicKey, plaintext, { info })
    expect(await hpkeOpen(recipientOf(pair), info, concat(encapsulatedSecret, ciphertext))).toEqual(plaintext)
  }
})

test("an independent implementation opens what we sealed", async () => {
  const pair = await suite.GenerateKeyPair(true)
  const publicKey = await suite.SerializePublicKey(pair.publicKey)
  for (const length of [0, 1, 16, 100, 1000]) {
    const plaintext = new Uint8Array(length).fill(length)
    const sealed = await hpkeSeal(publicKey, utf8("info"), plaintext)
    expect(sealed.length).toBe(length + 81)
    const opened = await suite.Open(pair.privateKey, sealed.subarray(0, 65), sealed.subarray(65), {
      info: utf8("info"),
    })
    expect(opened).toEqual(plaintext)
  }
})

test("another recipient, another info, any changed byte and every truncation are refused", async () => {
  const pair = p256Generate()
  const recipient = recipientOf(pair)
  const info = utf8("grant")
  const sealed = await hpkeSeal(pair.publicKey, info, utf8("secret"))
  expect(await codeOf(hpkeOpen(recipientOf(p256Generate()), info, sealed))).toBe("integrity")
  expect(await codeOf(hpkeOpen(recipient, utf8("granT"), sealed))).toBe("integrity")
  for (let at = 0; at < sealed.length; at++) {
    const changed = sealed.slice()
    changed[at]! ^= 0x10
    expect(await codeOf(hpkeOpen(recipient, info, changed))).toBe("integrity")
    expect(await codeOf(hpkeOpen(recipient, info, sealed.subarray(0, at)))).toBe("integrity")
  }
  expect(await codeOf(hpkeOpen(recipient, info, concat(sealed, new Uint8Array(1))))).toBe("integrity")
})

test("many messages of one context go both ways between us and an independent implementation", async () => {
  const ours = p256Generate()
  const info = utf8("many")
  const { encapsulatedSecret, ctx: theirs } = await suite.SetupSender(
    await suite.DeserializePublicKey(ours.publicKey),
    { info },
  )
  const opener = await hpkeSetupRecipient(recipientOf(ours), info, encapsulatedSecret)
  const pair = await suite.GenerateKeyPair(true)
  const { enc, context } = hpkeSetupSender(await suite.SerializePublicKey(pair.publicKey), info)
  const reader = await suite.SetupRecipient(pair.privateKey, enc, { info })
  for (let sequence = 0; sequence < 300; sequence += 1) {
    const [aad, plaintext] = [utf8(`aad ${sequence}`), utf8(`text ${sequence}`)]
    expect(opener.open(sequence, aad, await theirs.Seal(plaintext, aad))).toEqual(plaintext)
    expect(await reader.Open(context.seal(sequence, aad, plaintext), aad)).toEqual(plaintext)
  }
  expect(() => context.seal(-1, info, info)).toThrow(RangeError)
  expect(() => context.seal(2 ** 53, info, info)).toThrow(RangeError)
})

test("a point off the curve never reaches the key's holder", async () => {
  const pair = p256Generate()
  let asked = 0
  const recipient = { ...recipientOf(pair), zgen: async () => (asked++, new Uint8Array(32)) }
  const sealed = await hpkeSeal(pair.publicKey, utf8(""), utf8("x"))
  sealed[64]! ^= 1
  expect(await codeOf(hpkeOpen(recipient, utf8(""), sealed))).toBe("integrity")
  expect(asked).toBe(0)
})

test("two seals of one text differ, and sealing to no point of the curve fails", async () => {
  const pair = p256Generate()
  const [first, second] = [
    await hpkeSeal(pair.publicKey, utf8("i"), utf8("x")),
    await hpkeSeal(pair.publicKey, utf8("i"), utf8("x")),
  ]
  expect(first).not.toEqual(second)
  const off = pair.publicKey.slice()
  off[64]! ^= 1
  expect(await codeOf(hpkeSeal(off, utf8("i"), utf8("x")))).toBe("signature")
  expect(AES_256_GCM).toEqual({ id: 2, keyBytes: 32 })
})
