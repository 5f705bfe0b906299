/**
 * @module tpm/pcr-selection
 *
 * TPML_PCR_SELECTION and TPML_DIGEST. A selection is held as one bank and a sorted list of indices; mvm uses the
 * sha256 bank alone.
 *
 * @spec TPM 2.0 Part 2 §10.6.2 (TPMS_PCR_SELECTION), §10.9.7 (TPML_PCR_SELECTION), §10.9.3 (TPML_DIGEST)
 */

import type { ByteReader } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import { PCR_COUNT, TPM_ALG } from "./constants.ts"
import { TpmWriter, decodeWhole, readCount, readTpm2b } from "./marshal.ts"

/** sizeofSelect of a TPM with 24 PCRs. */
const SELECT_BYTES = PCR_COUNT / 8

/** Banks a TPM may hold. @spec Part 2 HASH_COUNT, with room */
const MAX_BANKS = 16

/** Digests one TPML_DIGEST can carry. @spec Part 2 §10.9.3 */
const MAX_DIGESTS = 8

const MAX_DIGEST_BYTES = 64

/** TPMS_PCR_SELECTION. */
export interface PcrSelection {
  /** TPM_ALG_ID of the bank. */
  hash: number
  /** Indices, ascending. */
  pcrs: number[]
}

export function writePcrSelection(writer: TpmWriter, selections: readonly PcrSelection[]): void {
  writer.u32(selections.length)
  for (const { hash, pcrs } of selections) {
    const select = new Uint8Array(SELECT_BYTES)
    for (const index of pcrs) {
      requirePcr(index)
      select[index >> 3]! |= 1 << (index & 7)
    }
    writer.u16(hash).u8(SELECT_BYTES).bytes(select)
  }
}

/** TPML_PCR_SELECTION of the sha256 bank alone. @throws MvmError `tpm` for an index outside 0-23. */
export function encodeSha256Selection(pcrs: readonly number[]): Uint8Array {
  const writer = new TpmWriter()
  writePcrSelection(writer, [{ hash: TPM_ALG.SHA256, pcrs: [...pcrs] }])
  return writer.done()
}

export function readPcrSelection(reader: ByteReader): PcrSelection[] {
  const count = readCount(reader, "pcrSelection.count", MAX_BANKS)
  const selections: PcrSelection[] = []
  for (let i = 0; i < count; i++) {
    const hash = reader.u16be(`pcrSelection[${i}].hash`)
    if (selections.some((other) => other.hash === hash)) {
      throw reader.error(`pcrSelection[${i}].hash`, `bank 0x${hash.toString(16)} twice`)
    }
    const sizeofSelect = reader.u8(`pcrSelection[${i}].sizeofSelect`)
    if (sizeofSelect !== SELECT_BYTES) {
      throw reader.error(
        `pcrSelection[${i}].sizeofSelect`,
        `${sizeofSelect} where ${SELECT_BYTES} is expected`,
      )
    }
    selections.push({ hash, pcrs: indicesOf(reader.bytes(sizeofSelect, `pcrSelection[${i}].pcrSelect`)) })
  }
  return selections
}

/** Decodes a whole TPML_PCR_SELECTION. @throws MvmError `tpm` */
export function decodePcrSelection(bytes: Uint8Array): PcrSelection[] {
  return decodeWhole(bytes, "TPML_PCR_SELECTION", readPcrSelection)
}

export function readDigests(reader: ByteReader): Uint8Array[] {
  const count = readCount(reader, "digests.count", MAX_DIGESTS)
  const digests: Uint8Array[] = []
  for (let i = 0; i < count; i++) digests.push(readTpm2b(reader, `digests[${i}]`, MAX_DIGEST_BYTES))
  return digests
}

/** Decodes a whole TPML_DIGEST. @throws MvmError `tpm` */
export function decodeDigests(bytes: Uint8Array): Uint8Array[] {
  return decodeWhole(bytes, "TPML_DIGEST", readDigests)
}

/** @throws MvmError `tpm` for an index outside 0-23. */
export function requirePcr(index: number): void {
  if (!Number.isInteger(index) || index < 0 || index >= PCR_COUNT) {
    throw new MvmError("tpm", `pcr index: ${index} is not in 0-${PCR_COUNT - 1}`)
  }
}

function indicesOf(select: Uint8Array): number[] {
  const pcrs: number[] = []
  for (let index = 0; index < select.length * 8; index++) {
    if ((select[index >> 3]! >> (index & 7)) & 1) pcrs.push(index)
  }
  return pcrs
}
