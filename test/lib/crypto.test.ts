import { p256 } from "@noble/curves/nist.js"
import { x25519 } from "@noble/curves/ed25519.js"
import { hmac } from "@noble/hashes/hmac.js"
import { sha256 as nobleSha256 } from "@noble/hashes/sha2.js"
import { describe, expect, test } from "bun:test"
import { hkdfSync } from "node:crypto"
import { fromHex, toHex, utf8 } from "../../src/lib/bytes.ts"
import {
  aes256gcmOpen,
  aes256gcmSeal,
  aes256Key,
  discardOutput,
  gcmOpen,
  gcmSeal,
  hkdfExpand,
  hkdfExtract,
  hmacSha256,
  isP256PublicKey,
  p256Ecdh,
  p256Generate,
  p256PublicKey,
  p256Sign,
  p256Verify,
  random,
  Sha256,
  sha256,
  x25519Generate,
  x25519Shared,
} from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import ecdhVectors from "../vectors/ecdh-p256.json"
import ecdsaVectors from "../vectors/ecdsa-p256-sha256.json"
import gcmVectors from "../vectors/aes-256-gcm.json"
import hkdfVectors from "../vectors/hkdf-sha256.json"
import hmacVectors from "../vectors/hmac-sha256.json"
import sha256Vectors from "../vectors/sha256.json"
import x25519Vectors from "../vectors/x25519.json"

const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return error instanceof MvmError ? error.code : `not ours: ${error}`
  }
  return "none"
}

describe("SHA-256 and HMAC", () => {
  test("agree with the published digests, whole, in parts and by the other implementation", () => {
    for (const { message, digest } of sha256Vectors.cases) {
      const bytes = fromHex(message)
      const half = bytes.length >> 1
      expect(toHex(sha256(bytes))).toBe(digest)
      expect(toHex(sha256(bytes.subarray(0, half), bytes.subarray(half)))).toBe(digest)
      expect(toHex(new Sha256().update(bytes.subarray(0, half)).update(bytes.subarray(half)).digest())).toBe(
        digest,
      )
      expect(toHex(nobleSha256(bytes))).toBe(digest)
    }
  })

  test("HMAC agrees with RFC 4231 and with the other implementation", () => {
    for (const { key, message, mac } of hmacVectors.cases) {
      expect(toHex(hmacSha256(fromHex(key), fromHex(message)))).toBe(mac)
      expect(toHex(hmac(nobleSha256, fromHex(key), fromHex(message)))).toBe(mac)
    }
  })
})

describe("HKDF", () => {
  test("extract and expand agree with RFC 5869 and with the other implementation", () => {
    for (const { ikm, salt, info, lengthBytes, prk, okm } of hkdfVectors.cases) {
      const extracted = hkdfExtract(fromHex(salt), fromHex(ikm))
      expect(toHex(extracted)).toBe(prk)
      expect(toHex(hkdfExpand(extracted, fromHex(info), lengthBytes))).toBe(okm)
      const runtime = hkdfSync("sha256", fromHex(ikm), fromHex(salt), fromHex(info), lengthBytes)
      expect(toHex(new Uint8Array(runtime))).toBe(okm)
    }
  })
})

describe("P-256 signatures", () => {
  test("valid and invalid published signatures are told apart, as the other implementation does", () => {
    for (const { message, publicKey, signature, valid, note } of ecdsaVectors.cases) {
      const [key, text, bytes] = [fromHex(publicKey), fromHex(message), fromHex(signature)]
      expect(p256Verify(key, text, bytes), note).toBe(valid)
      expect(p256.verify(bytes, text, key, { lowS: false }), note).toBe(valid)
    }
  })

  test("our signatures verify here and in the other implementation", () => {
    for (let round = 0; round < 20; round++) {
      const { privateKey, publicKey } = p256Generate()
      const message = random(round * 7)
      const signature = p256Sign(privateKey, message)
      expect(signature.length).toBe(64)
      expect(p256Verify(publicKey, message, signature)).toBe(true)
      expect(p256.verify(signature, message, publicKey, { lowS: false })).toBe(true)
      expect(p256PublicKey(privateKey)).toEqual(publicKey)
    }
  })

  test("both s and its negative verify, since a TPM does not normalise it", () => {
    const { privateKey, publicKey } = p256Generate()
    const signature = p256Sign(privateKey, utf8("message"))
    const s = BigInt(`0x${toHex(signature.subarray(32))}`)
    const mirrored = signature.slice()
    mirrored.set(fromHex((P256_ORDER - s).toString(16).padStart(64, "0")), 32)
    expect(p256Verify(publicKey, utf8("message"), mirrored)).toBe(true)
  })

  test("a changed message, signature or key, zero r or s, and every other length are not valid", () => {
    const { privateKey, publicKey } = p256Generate()
    const message = utf8("message")
    const signature = p256Sign(privateKey, message)
    for (let bit = 0; bit < 512; bit += 37) {
      const changed = signature.slice()
      changed[bit >> 3]! ^= 1 << (bit & 7)
      expect(p256Verify(publicKey, message, changed)).toBe(false)
    }
    expect(p256Verify(publicKey, utf8("massage"), signature)).toBe(false)
    expect(p256Verify(p256Generate().publicKey, message, signature)).toBe(false)
    expect(p256Verify(publicKey, message, new Uint8Array(64))).toBe(false)
    for (let length = 0; length < 130; length++) {
      if (length !== 64) expect(p256Verify(publicKey, message, new Uint8Array(length).fill(1))).toBe(false)
      if (length !== 65) expect(p256Verify(new Uint8Array(length).fill(4), message, signature)).toBe(false)
    }
  })

  test("a public key off the curve, at infinity, compressed or with a wrong prefix is refused", () => {
    const { privateKey, publicKey } = p256Generate()
    const signature = p256Sign(privateKey, utf8("m"))
    const offCurve = publicKey.slice()
    offCurve[64]! ^= 1
    const infinity = new Uint8Array(65)
    infinity[0] = 4
    const hybrid = publicKey.slice()
    hybrid[0] = 6 + (publicKey[64]! & 1)
    const compressed = p256.getPublicKey(privateKey, true)
    for (const bad of [offCurve, infinity, hybrid, compressed, new Uint8Array(0)]) {
      expect(isP256PublicKey(bad)).toBe(false)
      expect(p256Verify(bad, utf8("m"), signature)).toBe(false)
      expect(codeOf(() => p256Ecdh(privateKey, bad))).toBe("signature")
    }
    expect(isP256PublicKey(publicKey)).toBe(true)
  })

  test("a private scalar of zero, the order or a wrong length is refused", () => {
    for (const bad of [new Uint8Array(32), fromHex(P256_ORDER.toString(16)), new Uint8Array(31).fill(1)]) {
      expect(codeOf(() => p256Sign(bad, utf8("m")))).toBe("signature")
      expect(codeOf(() => p256PublicKey(bad))).toBe("signature")
    }
  })
})

describe("P-256 ECDH", () => {
  test("agrees with the published secrets and refuses the published bad points", () => {
    for (const { privateKey, publicKey, shared, note } of ecdhVectors.cases) {
      const [scalar, point] = [fromHex(privateKey), fromHex(publicKey)]
      const badPoint = /CAVS's Static public key/.test(note)
      expect(isP256PublicKey(point), note).toBe(!badPoint)
      if (badPoint) {
        expect(
          codeOf(() => p256Ecdh(scalar, point)),
          note,
        ).toBe("signature")
        continue
      }
      const ours = toHex(p256Ecdh(scalar, point))
      expect(ours).toBe(toHex(p256.getSharedSecret(scalar, point, false).subarray(1, 33)))
      if (note.startsWith("P")) expect(ours, note).toBe(shared)
      if (note.includes("Z changed")) expect(ours, note).not.toBe(shared)
    }
  })
})

describe("X25519", () => {
  test("agrees with RFC 7748 and with the other implementation", () => {
    for (const { privateKey, publicKey, shared } of x25519Vectors.cases) {
      expect(toHex(x25519Shared(fromHex(privateKey), fromHex(publicKey)))).toBe(shared)
      expect(toHex(x25519.getSharedSecret(fromHex(privateKey), fromHex(publicKey)))).toBe(shared)
    }
  })

  test("agrees with RFC 7748's thousand iterations", () => {
    let k: Uint8Array = new Uint8Array(32)
    k[0] = 9
    let u = k
    for (let round = 0; round < 1000; round++) [k, u] = [x25519Shared(k, u), k]
    expect(toHex(k)).toBe("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
  })

  test("two generated pairs agree on a secret", () => {
    const [a, b] = [x25519Generate(), x25519Generate()]
    expect(x25519Shared(a.privateKey, b.publicKey)).toEqual(x25519Shared(b.privateKey, a.publicKey))
    expect(a.publicKey).toEqual(x25519.getPublicKey(a.privateKey))
  })

  test("a low-order public key, or one of another length, is refused", () => {
    const { privateKey } = x25519Generate()
    for (const point of x25519Vectors.lowOrder) {
      expect(codeOf(() => x25519Shared(privateKey, fromHex(point)))).toBe("protocol")
    }
    for (const length of [0, 31, 33]) {
      expect(codeOf(() => x25519Shared(privateKey, new Uint8Array(length).fill(9)))).toBe("protocol")
    }
  })
})

describe("AES-256-GCM", () => {
  test("opens the published ciphertexts, refuses the published forgeries, and seals to the same bytes", () => {
    for (const { key, nonce, aad, ciphertext, tag, plaintext } of gcmVectors.cases) {
      const aesKey = aes256Key(fromHex(key))
      const sealed = { ciphertext: fromHex(ciphertext), tag: fromHex(tag) }
      const opened = gcmOpen(aesKey, fromHex(nonce), fromHex(aad), sealed)
      if (plaintext === null) {
        expect(opened).toBeUndefined()
        continue
      }
      expect(toHex(opened!)).toBe(plaintext)
      const again = gcmSeal(aesKey, fromHex(nonce), fromHex(aad), fromHex(plaintext))
      expect(toHex(again.ciphertext)).toBe(ciphertext)
      expect(toHex(again.tag)).toBe(tag)
    }
  })

  test("refuses every truncation, and any change of nonce, associated data or text", () => {
    const [key, nonce, aad] = [random(32), random(12), random(16)]
    const sealed = aes256gcmSeal(key, nonce, aad, utf8("twenty-nine bytes of plaintext"))
    for (let length = 0; length < sealed.length; length++) {
      expect(codeOf(() => aes256gcmOpen(key, nonce, aad, sealed.subarray(0, length)))).toBe("integrity")
    }
    for (const target of [nonce, aad, sealed]) {
      target[3]! ^= 4
      expect(codeOf(() => aes256gcmOpen(key, nonce, aad, sealed))).toBe("integrity")
      target[3]! ^= 4
    }
    expect(new TextDecoder().decode(aes256gcmOpen(key, nonce, aad, sealed))).toBe(
      "twenty-nine bytes of plaintext",
    )
  })

  test("discarding frees a long output, and never what is a part of another buffer", () => {
    const [key, nonce, aad] = [aes256Key(random(32)), random(12), new Uint8Array(0)]
    for (const length of [16384, 65472, 1 << 20]) {
      const sealed = gcmSeal(key, nonce, aad, new Uint8Array(length))
      const opened = gcmOpen(key, nonce, aad, sealed)!
      for (const output of [sealed.ciphertext, opened]) {
        discardOutput(output)
        expect(output.length).toBe(0)
      }
    }
    const whole = new Uint8Array(100_000)
    discardOutput(whole.subarray(0, 50_000))
    discardOutput(whole.subarray(50_000))
    expect(whole.length).toBe(100_000)
  })

  test("a tag shorter than 16 bytes is refused", () => {
    const [key, nonce] = [aes256Key(random(32)), random(12)]
    const { ciphertext, tag } = gcmSeal(key, nonce, new Uint8Array(0), utf8("x"))
    for (const length of [0, 4, 8, 12, 15]) {
      expect(
        gcmOpen(key, nonce, new Uint8Array(0), { ciphertext, tag: tag.subarray(0, length) }),
      ).toBeUndefined()
    }
    expect(() => aes256Key(random(16))).toThrow(RangeError)
  })
})
