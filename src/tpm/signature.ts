/**
 * @module tpm/signature
 *
 * TPMT_SIGNATURE, ECDSA with SHA-256 over P-256 only. Elsewhere in the program a signature is 64 bytes, r then s.
 *
 * @spec TPM 2.0 Part 2 §11.3.4 (TPMT_SIGNATURE), §11.3.2 (TPMS_SIGNATURE_ECDSA)
 */

import type { ByteReader } from "../lib/bytes.ts"
import { TPM_ALG } from "./constants.ts"
import { TpmWriter, decodeWhole, expectU16, readTpm2b } from "./marshal.ts"

const SCALAR_BYTES = 32

/** @returns 64 bytes, r || s */
export function readSignature(reader: ByteReader): Uint8Array {
  expectU16(reader, "sigAlg", TPM_ALG.ECDSA)
  expectU16(reader, "signature.hash", TPM_ALG.SHA256)
  const out = new Uint8Array(2 * SCALAR_BYTES)
  out.set(readScalar(reader, "signatureR"), 0)
  out.set(readScalar(reader, "signatureS"), SCALAR_BYTES)
  return out
}

/** Decodes a whole TPMT_SIGNATURE to r || s. @throws MvmError `tpm` */
export function decodeSignature(bytes: Uint8Array): Uint8Array {
  return decodeWhole(bytes, "TPMT_SIGNATURE", readSignature)
}

/** TPMT_SIGNATURE of a 64-byte r || s, as tpm2-tools reads and writes it. */
export function encodeSignature(signature: Uint8Array): Uint8Array {
  return new TpmWriter()
    .u16(TPM_ALG.ECDSA)
    .u16(TPM_ALG.SHA256)
    .tpm2b(signature.subarray(0, SCALAR_BYTES))
    .tpm2b(signature.subarray(SCALAR_BYTES, 2 * SCALAR_BYTES))
    .done()
}

/** A TPM may leave out leading zeros of a scalar or coordinate. @returns 32 bytes */
export function readScalar(reader: ByteReader, field: string): Uint8Array {
  const bytes = readTpm2b(reader, field, SCALAR_BYTES)
  const out = new Uint8Array(SCALAR_BYTES)
  out.set(bytes, SCALAR_BYTES - bytes.length)
  return out
}
