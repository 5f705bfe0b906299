/**
 * @module lib/crypto
 *
 * The one file where primitives are chosen. The runtime's BoringSSL (`node:crypto`) does what runs for every byte
 * or every request: SHA-256, HMAC, AES-256-GCM, and P-256 and X25519, which are 10-17 times faster there than in
 * JavaScript. @noble does what runs once a channel: HKDF and the check of a public point. The tests run both on
 * the same published vectors.
 *
 * ECDSA signs and verifies the *message*: SHA-256 is taken inside. Signatures are 64 bytes, r || s, and high s is
 * accepted (a TPM does not normalise it), so a signature is never an identifier.
 *
 * Past 300 lines, because the choice of every primitive stays in one place.
 *
 * Not here: ChaCha20-Poly1305 (the runtime lacks it), any other curve, any hash shorter than 256 bits.
 */

import { p256 } from "@noble/curves/nist.js"
import { expand, extract } from "@noble/hashes/hkdf.js"
import { sha256 as nobleSha256 } from "@noble/hashes/sha2.js"
import {
  createCipheriv,
  createDecipheriv,
  createECDH,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  randomFillSync,
  sign,
  verify,
  type CipherGCM,
  type DecipherGCM,
  type KeyObject,
} from "node:crypto"
import { concat, fromHex } from "./bytes.ts"
import { MvmError } from "./errors.ts"

export const SHA256_BYTES = 32
export const P256_PRIVATE_BYTES = 32
export const P256_PUBLIC_BYTES = 65
export const P256_SIGNATURE_BYTES = 64
export const X25519_BYTES = 32
export const AES256_KEY_BYTES = 32
export const GCM_NONCE_BYTES = 12
export const GCM_TAG_BYTES = 16

const DISCARD_FROM_BYTES = 16 * 1024

/** DER prefixes that turn a raw key into what the runtime imports. @spec RFC 5480, RFC 5915, RFC 8410 */
const P256_SPKI = fromHex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
const P256_PKCS8 = fromHex("304102010030" + "1306072a8648ce3d020106082a8648ce3d030107" + "042730250201010420")
const X25519_SPKI = fromHex("302a300506032b656e032100")
const X25519_PKCS8 = fromHex("302e020100300506032b656e04220420")

export interface KeyPair {
  /** P-256: 32-byte scalar, big-endian. X25519: 32 bytes. */
  readonly privateKey: Uint8Array
  /** P-256: 65-byte uncompressed point. X25519: 32-byte u-coordinate. */
  readonly publicKey: Uint8Array
}

/** An AES-256 key the runtime holds; made once by {@link aes256Key}, cheap to use for each record. */
export type Aes256Key = KeyObject

export interface Sealed {
  readonly ciphertext: Uint8Array
  /** 16-byte GCM tag. */
  readonly tag: Uint8Array
}

/** Cryptographically secure random bytes. */
export function random(lengthBytes: number): Uint8Array {
  return randomFillSync(unmoved(lengthBytes))
}

/** 32-byte SHA-256 of the concatenation of `parts`. @spec FIPS 180-4 */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  return plain(hash.digest())
}

/** A running SHA-256, for content that arrives in pieces. */
export class Sha256 {
  readonly #hash = createHash("sha256")

  update(bytes: Uint8Array): this {
    this.#hash.update(bytes)
    return this
  }

  /** The 32-byte digest; the object is spent. */
  digest(): Uint8Array {
    return plain(this.#hash.digest())
  }
}

/** 32-byte HMAC-SHA-256 over the concatenation of `parts`. @spec RFC 2104 */
export function hmacSha256(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  const mac = createHmac("sha256", key)
  for (const part of parts) mac.update(part)
  return plain(mac.digest())
}

/** 32-byte pseudorandom key. An empty salt means 32 zero bytes. @spec RFC 5869 §2.2 */
export function hkdfExtract(salt: Uint8Array, ikm: Uint8Array): Uint8Array {
  return extract(nobleSha256, ikm, salt)
}

/** `lengthBytes` (at most 8160) of key material. @spec RFC 5869 §2.3 */
export function hkdfExpand(prk: Uint8Array, info: Uint8Array, lengthBytes: number): Uint8Array {
  return expand(nobleSha256, prk, info, lengthBytes)
}

// P-256

export function p256Generate(): KeyPair {
  const ecdh = createECDH("prime256v1")
  ecdh.generateKeys()
  // The runtime drops leading zero bytes of the scalar.
  const scalar = ecdh.getPrivateKey()
  const privateKey = unmoved(P256_PRIVATE_BYTES)
  privateKey.set(scalar, P256_PRIVATE_BYTES - scalar.length)
  scalar.fill(0)
  return { privateKey, publicKey: plain(ecdh.getPublicKey()) }
}

/** The 65-byte public point of a 32-byte private scalar. @throws MvmError `signature` for a scalar out of range. */
export function p256PublicKey(privateKey: Uint8Array): Uint8Array {
  try {
    return p256.getPublicKey(privateKey, false)
  } catch (cause) {
    throw new MvmError("signature", "p256.privateKey: not a scalar of the curve", { cause })
  }
}

/** Whether `publicKey` is a 65-byte uncompressed point on the curve, and not the point at infinity. */
export function isP256PublicKey(publicKey: Uint8Array): boolean {
  if (publicKey.length !== P256_PUBLIC_BYTES || publicKey[0] !== 4) return false
  try {
    p256.Point.fromBytes(publicKey).assertValidity()
    return true
  } catch {
    return false
  }
}

/** 64-byte signature r || s over SHA-256 of `message`. @spec FIPS 186-5 §6.4.1 */
export function p256Sign(privateKey: Uint8Array, message: Uint8Array): Uint8Array {
  return p256Signer(privateKey)(message)
}

/** As {@link p256Sign}, with the key imported once. */
export function p256Signer(privateKey: Uint8Array): (message: Uint8Array) => Uint8Array {
  const key = importKey(() =>
    createPrivateKey({ key: Buffer.from(concat(P256_PKCS8, privateKey)), format: "der", type: "pkcs8" }),
  )
  return (message) => plain(sign("sha256", message, { key, dsaEncoding: "ieee-p1363" }))
}

/**
 * Whether `signature` (64 bytes, r || s, low s not required) is `publicKey`'s over SHA-256 of `message`.
 * A key that is not a point of the curve, or a signature of another length, is simply not valid: false.
 *
 * Trust: every argument may come from a peer.
 *
 * @spec FIPS 186-5 §6.4.2
 */
export function p256Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== P256_SIGNATURE_BYTES) return false
  if (publicKey.length !== P256_PUBLIC_BYTES || publicKey[0] !== 4) return false
  try {
    const key = p256Import(publicKey)
    return verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, signature)
  } catch {
    return false
  }
}

/**
 * The 32-byte x-coordinate of privateKey * publicKey.
 *
 * Trust: `publicKey` may come from a peer; a point off the curve is refused.
 *
 * @throws MvmError `signature` when either key is none.
 */
export function p256Ecdh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array {
  if (publicKey.length !== P256_PUBLIC_BYTES || publicKey[0] !== 4) {
    throw new MvmError("signature", "p256.publicKey: not an uncompressed point")
  }
  try {
    const ecdh = createECDH("prime256v1")
    ecdh.setPrivateKey(privateKey)
    return taken(ecdh.computeSecret(publicKey))
  } catch (cause) {
    throw new MvmError("signature", "p256.publicKey: not a point of the curve", { cause })
  }
}

// X25519

export function x25519Generate(): KeyPair {
  const privateKey = random(X25519_BYTES)
  const spki = createPublicKey(x25519Private(privateKey)).export({ format: "der", type: "spki" })
  return { privateKey, publicKey: plain(spki.subarray(X25519_SPKI.length)) }
}

/**
 * The 32-byte shared secret. @spec RFC 7748 §6.1
 *
 * Trust: `publicKey` comes from a peer; one of low order gives an all-zero secret and is refused.
 *
 * @throws MvmError `protocol` for a key of another length or of low order.
 */
export function x25519Shared(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array {
  if (publicKey.length !== X25519_BYTES) throw new MvmError("protocol", "x25519.publicKey: not 32 bytes")
  let shared: Uint8Array
  try {
    const peer = createPublicKey({
      key: Buffer.from(concat(X25519_SPKI, publicKey)),
      format: "der",
      type: "spki",
    })
    shared = taken(diffieHellman({ privateKey: x25519Private(privateKey), publicKey: peer }))
  } catch (cause) {
    throw new MvmError("protocol", "x25519.publicKey: a point of low order", { cause })
  }
  let or = 0
  for (const byte of shared) or |= byte
  if (or === 0) throw new MvmError("protocol", "x25519.publicKey: a point of low order")
  return shared
}

// AES-256-GCM

/** @throws RangeError unless `key` is 32 bytes. */
export function aes256Key(key: Uint8Array): Aes256Key {
  if (key.length !== AES256_KEY_BYTES) throw new RangeError("an AES-256 key has 32 bytes")
  return createSecretKey(key)
}

/** A cipher for one nonce, made ahead of the text: two thirds of the cost of a short record is this object. */
export type PreparedSeal = CipherGCM
/** A decipher for one nonce, made ahead of the ciphertext. */
export type PreparedOpen = DecipherGCM

/** Prepares to seal one text under a 12-byte nonce that must never be used again with this key. */
export function prepareSeal(key: Aes256Key, nonce: Uint8Array): PreparedSeal {
  return createCipheriv("aes-256-gcm", key, nonce)
}

/** Prepares to open one ciphertext under a 12-byte nonce. */
export function prepareOpen(key: Aes256Key, nonce: Uint8Array): PreparedOpen {
  return createDecipheriv("aes-256-gcm", key, nonce)
}

/**
 * Seals `plaintext` with a cipher used for nothing before. The ciphertext is a fresh private buffer that the caller
 * owns. @spec NIST SP 800-38D §7.1
 */
export function finishSeal(prepared: PreparedSeal, aad: Uint8Array, plaintext: Uint8Array): Sealed {
  prepared.setAAD(aad)
  const ciphertext = prepared.update(plaintext)
  prepared.final()
  return { ciphertext, tag: prepared.getAuthTag() }
}

/**
 * The plaintext, or undefined when the tag does not fit; nothing of an unauthenticated plaintext leaves here.
 *
 * Trust: `aad` and `sealed` may come from a peer. `ciphertext` must not change during the call: the cipher may read
 * it twice.
 *
 * @spec NIST SP 800-38D §7.2
 */
export function finishOpen(prepared: PreparedOpen, aad: Uint8Array, sealed: Sealed): Uint8Array | undefined {
  if (sealed.tag.length !== GCM_TAG_BYTES) return undefined
  prepared.setAAD(aad)
  prepared.setAuthTag(sealed.tag)
  const plaintext = prepared.update(sealed.ciphertext)
  try {
    prepared.final()
    return plaintext
  } catch {
    plaintext.fill(0)
    return undefined
  }
}

/** {@link prepareSeal} and {@link finishSeal} in one. */
export function gcmSeal(key: Aes256Key, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Sealed {
  return finishSeal(prepareSeal(key, nonce), aad, plaintext)
}

/** {@link prepareOpen} and {@link finishOpen} in one. */
export function gcmOpen(
  key: Aes256Key,
  nonce: Uint8Array,
  aad: Uint8Array,
  sealed: Sealed,
): Uint8Array | undefined {
  return finishOpen(prepareOpen(key, nonce), aad, sealed)
}

/**
 * Frees what {@link gcmSeal} or {@link gcmOpen} returned, at once instead of at some later collection: the next
 * record's output then lands in the same memory, still warm in the cache, which makes sealing
 * for bulk up to a third faster. `output` is empty afterwards. Short outputs are left to the collector, which is cheaper.
 */
export function discardOutput(output: Uint8Array): void {
  if (output.length < DISCARD_FROM_BYTES) return
  // The runtime allocates a little more than it returns. Anything else is a part of somebody's buffer.
  if (output.byteOffset === 0 && output.buffer.byteLength <= output.length + GCM_TAG_BYTES) {
    ;(output.buffer as ArrayBuffer).transfer(0)
  }
}

/** `ciphertext || tag` in one buffer: for small messages, not for records. */
export function aes256gcmSeal(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  plaintext: Uint8Array,
): Uint8Array {
  const { ciphertext, tag } = gcmSeal(aes256Key(key), nonce, aad, plaintext)
  return concat(ciphertext, tag)
}

/** Opens `ciphertext || tag`. @throws MvmError `integrity` when it is not authentic. */
export function aes256gcmOpen(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  sealed: Uint8Array,
): Uint8Array {
  const split = sealed.length - GCM_TAG_BYTES
  if (split < 0) throw new MvmError("integrity", "aes256gcm.sealed: shorter than its tag")
  const parts = { ciphertext: sealed.subarray(0, split), tag: sealed.subarray(split) }
  const plaintext = gcmOpen(aes256Key(key), nonce, aad, parts)
  if (plaintext === undefined) throw new MvmError("integrity", "aes256gcm.tag: not authentic")
  return plain(plaintext)
}

/** Imported public keys, newest last: members are few and verify often. */
const imported = new Map<string, KeyObject>()
const MAX_IMPORTED = 1024

function p256Import(publicKey: Uint8Array): KeyObject {
  const name = publicKey.toHex()
  let key = imported.get(name)
  if (key) return key
  key = createPublicKey({ key: Buffer.from(concat(P256_SPKI, publicKey)), format: "der", type: "spki" })
  if (imported.size >= MAX_IMPORTED) imported.delete(imported.keys().next().value as string)
  imported.set(name, key)
  return key
}

function x25519Private(privateKey: Uint8Array): KeyObject {
  const der = Buffer.from(unmoved(X25519_PKCS8.length + X25519_BYTES).buffer)
  der.set(X25519_PKCS8)
  der.set(privateKey, X25519_PKCS8.length)
  try {
    return createPrivateKey({ key: der, format: "der", type: "pkcs8" })
  } finally {
    der.fill(0)
  }
}

function importKey(make: () => KeyObject): KeyObject {
  try {
    return make()
  } catch (cause) {
    throw new MvmError("signature", "p256.privateKey: not a scalar of the curve", { cause })
  }
}

/** A Buffer as the Uint8Array it wraps: Buffer.slice and toString differ, and nothing outside should meet them. */
/**
 * Bytes that stay where they are, so that wiping them wipes all there is. A short typed array lies in the collector's
 * heap until its buffer is asked for (as `subarray` does), and that leaves a copy there.
 */
function unmoved(lengthBytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(lengthBytes))
}

/** A secret that the runtime made, out of its hands. */
function taken(secret: Buffer): Uint8Array {
  const bytes = unmoved(secret.length)
  bytes.set(secret)
  secret.fill(0)
  return bytes
}

function plain(buffer: Uint8Array): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
}
