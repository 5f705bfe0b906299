/**
 * @module tpm/public
 *
 * TPMT_PUBLIC of an ECC P-256 key with nameAlg SHA-256, its templates' encoding, and TPM Names. Other key types,
 * curves and hashes are refused.
 *
 * @spec TPM 2.0 Part 2 §12.2.4 (TPMT_PUBLIC), §12.2.3.6 (TPMS_ECC_PARMS), Part 1 §16 (Names)
 */

import { type ByteReader, concat } from "../lib/bytes.ts"
import { sha256 } from "../lib/crypto.ts"
import { TPMA_OBJECT_DEFINED, TPM_ALG, TPM_ECC_NIST_P256 } from "./constants.ts"
import { TpmWriter, decodeWhole, expectU16, readTpm2b } from "./marshal.ts"
import { readScalar } from "./signature.ts"

/** Greatest TPMT_PUBLIC accepted, in bytes; an ECC P-256 one is under 130. */
export const MAX_PUBLIC_BYTES = 512

const POLICY_BYTES = 32
const AES_KEY_BITS = 128

/** TPMT_SYM_DEF_OBJECT: none, or AES-128 in CFB mode. */
export type Symmetric = "none" | "aes128cfb"

/** TPMT_ECC_SCHEME: none, ECDSA or ECDH, both with SHA-256. */
export type EccScheme = "none" | "ecdsa-sha256" | "ecdh-sha256"

/** TPMT_PUBLIC with TPMS_ECC_PARMS and TPMS_ECC_POINT. */
export interface EccPublic {
  /** TPMA_OBJECT. */
  attributes: number
  /** 0 or 32 bytes. */
  authPolicy: Uint8Array
  symmetric: Symmetric
  scheme: EccScheme
  /** 32-byte coordinates; in a template, any bytes up to 32. */
  x: Uint8Array
  y: Uint8Array
}

export function encodePublic(key: EccPublic): Uint8Array {
  const writer = new TpmWriter()
    .u16(TPM_ALG.ECC)
    .u16(TPM_ALG.SHA256)
    .u32(key.attributes)
    .tpm2b(key.authPolicy)
  if (key.symmetric === "none") writer.u16(TPM_ALG.NULL)
  else writer.u16(TPM_ALG.AES).u16(AES_KEY_BITS).u16(TPM_ALG.CFB)
  if (key.scheme === "none") writer.u16(TPM_ALG.NULL)
  else writer.u16(key.scheme === "ecdsa-sha256" ? TPM_ALG.ECDSA : TPM_ALG.ECDH).u16(TPM_ALG.SHA256)
  return writer.u16(TPM_ECC_NIST_P256).u16(TPM_ALG.NULL).tpm2b(key.x).tpm2b(key.y).done()
}

/**
 * Decodes a whole TPMT_PUBLIC.
 *
 * Trust: the bytes come from a TPM or a guest; nothing in them is believed before a Name is compared.
 *
 * @throws MvmError `tpm`
 */
export function decodePublic(bytes: Uint8Array): EccPublic {
  return decodeWhole(bytes, "TPMT_PUBLIC", readPublic)
}

/** SEC1 uncompressed point of a key: 65 bytes, 04 || x || y. */
export function publicPoint(key: EccPublic): Uint8Array {
  return concat(Uint8Array.of(4), key.x, key.y)
}

/** TPM Name of a public area: nameAlg || SHA-256(TPMT_PUBLIC), 34 bytes. @spec Part 1 §16 */
export function nameOf(publicBytes: Uint8Array): Uint8Array {
  return new TpmWriter().u16(TPM_ALG.SHA256).bytes(sha256(publicBytes)).done()
}

function readPublic(reader: ByteReader): EccPublic {
  expectU16(reader, "type", TPM_ALG.ECC)
  expectU16(reader, "nameAlg", TPM_ALG.SHA256)
  const attributes = reader.u32be("objectAttributes")
  if ((attributes & ~TPMA_OBJECT_DEFINED) !== 0) {
    throw reader.error("objectAttributes", `reserved bits set in 0x${attributes.toString(16)}`)
  }
  const authPolicy = readTpm2b(reader, "authPolicy", POLICY_BYTES)
  if (authPolicy.length !== 0 && authPolicy.length !== POLICY_BYTES) {
    throw reader.error("authPolicy.size", `${authPolicy.length} bytes, 0 or ${POLICY_BYTES} expected`)
  }
  const symmetric = readSymmetric(reader)
  const scheme = readScheme(reader)
  expectU16(reader, "curveID", TPM_ECC_NIST_P256)
  expectU16(reader, "kdf.scheme", TPM_ALG.NULL)
  return { attributes, authPolicy, symmetric, scheme, x: readScalar(reader, "x"), y: readScalar(reader, "y") }
}

function readSymmetric(reader: ByteReader): Symmetric {
  const algorithm = reader.u16be("symmetric.algorithm")
  if (algorithm === TPM_ALG.NULL) return "none"
  if (algorithm !== TPM_ALG.AES) {
    throw reader.error("symmetric.algorithm", `unknown algorithm 0x${algorithm.toString(16)}`)
  }
  expectU16(reader, "symmetric.keyBits", AES_KEY_BITS)
  expectU16(reader, "symmetric.mode", TPM_ALG.CFB)
  return "aes128cfb"
}

function readScheme(reader: ByteReader): EccScheme {
  const scheme = reader.u16be("scheme.scheme")
  if (scheme === TPM_ALG.NULL) return "none"
  if (scheme !== TPM_ALG.ECDSA && scheme !== TPM_ALG.ECDH) {
    throw reader.error("scheme.scheme", `unknown scheme 0x${scheme.toString(16)}`)
  }
  expectU16(reader, "scheme.hashAlg", TPM_ALG.SHA256)
  return scheme === TPM_ALG.ECDSA ? "ecdsa-sha256" : "ecdh-sha256"
}
