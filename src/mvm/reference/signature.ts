/**
 * @module mvm/reference/signature
 *
 * Signed reference files: an ed25519 signature over the file's bytes as they are, so that
 * `openssl pkeyutl -sign -rawin -inkey key.pem -in values -out values.sig` makes one. The first line of a reference
 * file says what it is, and no other file that one signs starts so.
 *
 * @spec RFC 8032 §5.1.7
 */

import { ed25519 } from "@noble/curves/ed25519.js"
import { createPublicKey, verify, type KeyObject } from "node:crypto"
import { fromHex, fromUtf8 } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { sha256 } from "../../lib/crypto.ts"
import type { ReferenceTable } from "../../tcb/measurement/reference-table.ts"
import { parseReference } from "./file.ts"

const ED25519_PUBLIC_BYTES = 32
const ED25519_SIGNATURE_BYTES = 64
const ED25519_SPKI = fromHex("302a300506032b6570032100")

/** The 32-byte key of 64 hex digits or a PEM public key. @throws MvmError `config` for anything else. */
export function parseSigningKey(text: string): Uint8Array {
  const key = rawKey(text.trim())
  if (!isWeak(key)) return key
  throw new MvmError("config", "signing key: a point of small order, for which anybody can sign")
}

function rawKey(trimmed: string): Uint8Array {
  if (/^[0-9a-fA-F]{64}$/.test(trimmed)) return fromHex(trimmed)
  try {
    const spki = new Uint8Array(createPublicKey(trimmed).export({ format: "der", type: "spki" }))
    if (
      spki.length === ED25519_SPKI.length + ED25519_PUBLIC_BYTES &&
      ED25519_SPKI.every((b, i) => b === spki[i])
    ) {
      return spki.slice(ED25519_SPKI.length)
    }
  } catch (cause) {
    throw new MvmError("config", "signing key: neither 64 hex digits nor a pem public key", { cause })
  }
  throw new MvmError("config", "signing key: not an ed25519 key")
}

/**
 * Verifies, then parses. `signature` is 64 bytes, or their hex or base64 text; one of `keys` (32 bytes each) must
 * have made it.
 *
 * @returns the table, and the SHA-256 of the key that signed as hex
 * @throws MvmError `signature` when no key fits (nothing of the file was looked at), `config` for a signed file that
 *   is malformed.
 */
export function verifySignedReference(
  file: Uint8Array,
  signature: Uint8Array,
  keys: readonly Uint8Array[],
): { table: ReferenceTable; keyId: string } {
  const raw = rawSignature(signature)
  const signer = raw && keys.find((key) => ed25519Verify(key, file, raw))
  if (signer === undefined) {
    const known =
      keys.length === 0 ? "no signing key is configured" : `none of ${keys.length} configured keys made it`
    throw new MvmError("signature", `reference file: bad signature, ${known}`, {
      hint: "nothing was imported, the values in force stay in force",
    })
  }
  return { table: parseReference(file), keyId: sha256(signer).toHex() }
}

function rawSignature(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length === ED25519_SIGNATURE_BYTES) return bytes
  if (bytes.length > 4 * ED25519_SIGNATURE_BYTES) return undefined
  try {
    const text = fromUtf8(bytes).trim()
    const raw = /^[0-9a-fA-F]{128}$/.test(text) ? fromHex(text) : Uint8Array.fromBase64(text)
    return raw.length === ED25519_SIGNATURE_BYTES ? raw : undefined
  } catch {
    return undefined
  }
}

function ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== ED25519_PUBLIC_BYTES || isWeak(publicKey)) return false
  try {
    return verify(null, message, ed25519Import(publicKey), signature)
  } catch {
    return false
  }
}

/** The runtime takes such keys: any message has a signature under them that needs no secret. */
function isWeak(publicKey: Uint8Array): boolean {
  try {
    return ed25519.Point.fromBytes(publicKey, true).isSmallOrder()
  } catch {
    return false
  }
}

function ed25519Import(publicKey: Uint8Array): KeyObject {
  const key = Buffer.concat([ED25519_SPKI, publicKey])
  return createPublicKey({ key, format: "der", type: "spki" })
}
