/**
 * @module test/lib/wycheproof
 *
 * The primitives on Project Wycheproof's vectors, each by the implementation that the program uses and by the
 * other one at hand. What Wycheproof calls acceptable is settled here: one answer for each flag. The titles say
 * how many cases there are; the counts are held to them, so that a lost case fails.
 */

import { x25519 } from "@noble/curves/ed25519.js"
import { p256 } from "@noble/curves/nist.js"
import { hkdf } from "@noble/hashes/hkdf.js"
import { sha256 as nobleSha256 } from "@noble/hashes/sha2.js"
import { expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { hkdfSync } from "node:crypto"
import { join } from "node:path"
import { fromHex, toHex } from "../../src/lib/bytes.ts"
import {
  aes256Key,
  gcmOpen,
  gcmSeal,
  hkdfExpand,
  hkdfExtract,
  isP256PublicKey,
  p256Ecdh,
  p256Verify,
  x25519Shared,
} from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"

interface Case {
  tcId: number
  comment: string
  result: "valid" | "invalid" | "acceptable"
  flags: string[]
}

/** Runs every case of a file; counts them as `"<Wycheproof's word>: <what we did>"`. */
function tally<T extends Case, G = unknown>(
  file: string,
  accepted: (testCase: T, group: G) => boolean,
): Record<string, number> {
  const path = join(import.meta.dir, "../vectors/wycheproof", file)
  const { groups } = JSON.parse(readFileSync(path, "utf8")) as { groups: (G & { tests: T[] })[] }
  const counts: Record<string, number> = {}
  for (const group of groups) {
    for (const testCase of group.tests) {
      const outcome = `${testCase.result}: ${accepted(testCase, group) ? "accepted" : "refused"}`
      counts[outcome] = (counts[outcome] ?? 0) + 1
    }
  }
  return counts
}

/** What `make` returns, or undefined when it refuses with an error of ours. */
function unlessRefused<T>(make: () => T): T | undefined {
  try {
    return make()
  } catch (error) {
    if (error instanceof MvmError) return undefined
    throw error
  }
}

/** What `make` returns, or undefined whatever it throws: for the other implementation. */
function attempt<T>(make: () => T): T | undefined {
  try {
    return make()
  } catch {
    return undefined
  }
}

/** Both implementations agree on `testCase`. */
function agreed<T>(testCase: Case, ours: T, other: T): T {
  expect({ ...testCase, answer: other }).toEqual({ ...testCase, answer: ours })
  return ours
}

interface SignatureCase extends Case {
  msg: string
  sig: string
}

/** Our verification of r || s, and noble's. */
function verified(testCase: Case, publicKey: string, message: string, signature: Uint8Array): boolean {
  const [key, text] = [fromHex(publicKey), fromHex(message)]
  const other = attempt(() => p256.verify(signature, text, key, { lowS: false })) ?? false
  return agreed(testCase, p256Verify(key, text, signature), other)
}

test("ECDSA P-256 SHA-256, as r and s: 146 valid are accepted, 69 invalid and 4 of another length refused", () => {
  const counts = tally<SignatureCase, { publicKey: string }>(
    "ecdsa-p256-sha256-p1363.json",
    (testCase, { publicKey }) => verified(testCase, publicKey, testCase.msg, fromHex(testCase.sig)),
  )
  expect(counts).toEqual({ "valid: accepted": 146, "invalid: refused": 69, "acceptable: refused": 4 })
})

/** r || s of a DER signature in its one encoding, or undefined: the program itself knows no DER. */
function fromDer(der: Uint8Array): Uint8Array | undefined {
  const signature = attempt(() => p256.Signature.fromBytes(der, "der").toBytes("compact"))
  const again = signature && attempt(() => p256.Signature.fromBytes(signature, "compact").toBytes("der"))
  return again && toHex(again) === toHex(der) ? signature : undefined
}

test("ECDSA P-256 SHA-256, from DER: 147 valid are accepted, 239 invalid and 1 without its zero refused", () => {
  let expressible = 0
  const counts = tally<SignatureCase, { publicKey: string }>(
    "ecdsa-p256-sha256-der.json",
    (testCase, { publicKey }) => {
      const signature = fromDer(fromHex(testCase.sig))
      if (signature === undefined) return false
      expressible += 1
      return verified(testCase, publicKey, testCase.msg, signature)
    },
  )
  expect(counts).toEqual({ "valid: accepted": 147, "invalid: refused": 239, "acceptable: refused": 1 })
  // The others are no signature at all: bad DER, or r or s out of range.
  expect(expressible).toBe(167)
})

interface AgreementCase extends Case {
  public: string
  private: string
  shared: string
}

/** A scalar as Wycheproof writes it (a signed integer of any length) in 32 bytes. */
function scalar(hex: string): Uint8Array {
  return fromHex(hex.replace(/^0+/, "").padStart(64, "0"))
}

test("ECDH P-256: 191 valid agree, 24 invalid and 1 compressed point refused", () => {
  const counts = tally<AgreementCase>("ecdh-p256-point.json", (testCase) => {
    const [privateKey, point] = [scalar(testCase.private), fromHex(testCase.public)]
    const ours = unlessRefused(() => p256Ecdh(privateKey, point))
    expect({ ...testCase, known: isP256PublicKey(point) }).toEqual({ ...testCase, known: ours !== undefined })
    // noble takes compressed points too; we never do.
    const other = point.length === 65 && attempt(() => p256.getSharedSecret(privateKey, point).subarray(1))
    agreed(testCase, ours && toHex(ours), other ? toHex(other) : undefined)
    return ours !== undefined && toHex(ours) === testCase.shared
  })
  expect(counts).toEqual({ "valid: accepted": 191, "invalid: refused": 24, "acceptable: refused": 1 })
})

test("X25519: 265 valid and 222 acceptable agree, 31 that would share all zeros are refused", () => {
  const flags: Record<string, Set<boolean>> = {}
  const counts = tally<AgreementCase>("x25519.json", (testCase) => {
    const [privateKey, publicKey] = [fromHex(testCase.private), fromHex(testCase.public)]
    const ours = unlessRefused(() => toHex(x25519Shared(privateKey, publicKey)))
    agreed(
      testCase,
      ours,
      attempt(() => toHex(x25519.getSharedSecret(privateKey, publicKey))),
    )
    if (ours !== undefined) expect(ours).toBe(testCase.shared)
    for (const flag of testCase.flags) (flags[flag] ??= new Set()).add(ours !== undefined)
    return ours !== undefined
  })
  expect(counts).toEqual({ "valid: accepted": 265, "acceptable: accepted": 222, "acceptable: refused": 31 })
  expect(flags["ZeroSharedSecret"]).toEqual(new Set([false]))
  expect(flags["Twist"]).toContain(true)
})

interface SealedCase extends Case {
  key: string
  iv: string
  aad: string
  msg: string
  ct: string
  tag: string
}

test("AES-256-GCM: 21 valid open and seal to the same bytes, 27 invalid are refused", () => {
  const counts = tally<SealedCase>("aes-256-gcm.json", (testCase) => {
    const [key, nonce, aad] = [aes256Key(fromHex(testCase.key)), fromHex(testCase.iv), fromHex(testCase.aad)]
    const opened = gcmOpen(key, nonce, aad, { ciphertext: fromHex(testCase.ct), tag: fromHex(testCase.tag) })
    if (opened === undefined) return false
    expect(toHex(opened)).toBe(testCase.msg)
    const { ciphertext, tag } = gcmSeal(key, nonce, aad, fromHex(testCase.msg))
    expect([toHex(ciphertext), toHex(tag)]).toEqual([testCase.ct, testCase.tag])
    return true
  })
  expect(counts).toEqual({ "valid: accepted": 21, "invalid: refused": 27 })
})

interface DerivationCase extends Case {
  ikm: string
  salt: string
  info: string
  size: number
  okm: string
}

test("HKDF-SHA-256: 102 valid agree, 3 that ask for more than 255 blocks are refused", () => {
  const counts = tally<DerivationCase>("hkdf-sha256.json", ({ size, okm, ...testCase }) => {
    const [ikm, salt, info] = [fromHex(testCase.ikm), fromHex(testCase.salt), fromHex(testCase.info)]
    const ours = attempt(() => toHex(hkdfExpand(hkdfExtract(salt, ikm), info, size)))
    const others = [
      attempt(() => toHex(new Uint8Array(hkdfSync("sha256", ikm, salt, info, size)))),
      attempt(() => toHex(hkdf(nobleSha256, ikm, salt, info, size))),
    ]
    for (const other of others) agreed(testCase, ours, other)
    return ours !== undefined && ours === okm
  })
  expect(counts).toEqual({ "valid: accepted": 102, "invalid: refused": 3 })
})
