/**
 * @module tpm/nv-public
 *
 * TPMS_NV_PUBLIC: the public area of an ordinary NV index.
 *
 * @spec TPM 2.0 Part 2 §13.5
 */

import type { ByteReader } from "../lib/bytes.ts"
import { TPMA_NV_RESERVED, TPM_ALG } from "./constants.ts"
import { TpmWriter, decodeWhole, expectU16, readTpm2b } from "./marshal.ts"

const MAX_POLICY_BYTES = 64

export interface NvPublic {
  nvIndex: number
  /** TPMA_NV. */
  attributes: number
  authPolicy: Uint8Array
  dataSizeBytes: number
}

export function encodeNvPublic(nv: NvPublic): Uint8Array {
  return new TpmWriter()
    .u32(nv.nvIndex)
    .u16(TPM_ALG.SHA256)
    .u32(nv.attributes)
    .tpm2b(nv.authPolicy)
    .u16(nv.dataSizeBytes)
    .done()
}

/** Decodes a whole TPMS_NV_PUBLIC with nameAlg SHA-256. @throws MvmError `tpm` */
export function decodeNvPublic(bytes: Uint8Array): NvPublic {
  return decodeWhole(bytes, "TPMS_NV_PUBLIC", readNvPublic)
}

function readNvPublic(reader: ByteReader): NvPublic {
  const nvIndex = reader.u32be("nvIndex")
  if (nvIndex >>> 24 !== 0x01) throw reader.error("nvIndex", `0x${nvIndex.toString(16)} is no nv index`)
  expectU16(reader, "nameAlg", TPM_ALG.SHA256)
  const attributes = reader.u32be("attributes")
  if ((attributes & TPMA_NV_RESERVED) !== 0) {
    throw reader.error("attributes", `reserved bits set in 0x${attributes.toString(16)}`)
  }
  const authPolicy = readTpm2b(reader, "authPolicy", MAX_POLICY_BYTES)
  return { nvIndex, attributes, authPolicy, dataSizeBytes: reader.u16be("dataSize") }
}
