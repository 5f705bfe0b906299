/**
 * @module tpm/commands-pcr
 *
 * PCR commands, sha256 bank.
 *
 * @spec TPM 2.0 Part 3 §22.2 (TPM2_PCR_Extend), §22.4 (TPM2_PCR_Read), §22.5 (TPM2_PCR_Allocate)
 */

import { MvmError } from "../lib/errors.ts"
import { EMPTY_AUTH, decodeNothing, type TpmCommand } from "./command.ts"
import { TPM_ALG, TPM_CC, TPM_RH } from "./constants.ts"
import { TpmWriter } from "./marshal.ts"
import {
  type PcrSelection,
  encodeSha256Selection,
  readDigests,
  readPcrSelection,
  requirePcr,
  writePcrSelection,
} from "./pcr-selection.ts"

const SHA256_BYTES = 32

export interface PcrValues {
  /** Grows with every change of any PCR. */
  pcrUpdateCounter: number
  /** Indices the TPM returned: the first 8 of those asked for. */
  pcrs: number[]
  /** Their values, 32 bytes each, in the same order. */
  values: Uint8Array[]
}

/** @spec Part 3 §22.4 */
export function pcrReadCommand(pcrs: readonly number[]): TpmCommand<PcrValues> {
  return {
    name: "TPM2_PCR_Read",
    code: TPM_CC.PCR_READ,
    parameters: encodeSha256Selection(pcrs),
    decode: (reader) => {
      const pcrUpdateCounter = reader.u32be("pcrUpdateCounter")
      const [bank, ...others] = readPcrSelection(reader)
      if (others.length > 0 || (bank !== undefined && bank.hash !== TPM_ALG.SHA256)) {
        throw reader.error("pcrSelectionOut", "not the sha256 bank alone")
      }
      const values = readDigests(reader)
      const returned = bank?.pcrs ?? []
      if (values.length !== returned.length || values.some((value) => value.length !== SHA256_BYTES)) {
        throw reader.error("pcrValues", `${values.length} digests for ${returned.length} pcrs`)
      }
      return { pcrUpdateCounter, pcrs: returned, values }
    },
  }
}

/** @param digest 32 bytes. @spec Part 3 §22.2 */
export function pcrExtendCommand(index: number, digest: Uint8Array): TpmCommand<void> {
  requirePcr(index)
  if (digest.length !== SHA256_BYTES) {
    throw new MvmError("tpm", `digest: ${digest.length} bytes, ${SHA256_BYTES} expected`)
  }
  return {
    name: "TPM2_PCR_Extend",
    code: TPM_CC.PCR_EXTEND,
    // A PCR's handle is its index.
    handles: [index],
    auths: [EMPTY_AUTH],
    parameters: new TpmWriter().u32(1).u16(TPM_ALG.SHA256).bytes(digest).done(),
    decode: decodeNothing,
  }
}

/** Takes effect at the next TPM reset. @spec Part 3 §22.5 */
export function pcrAllocateCommand(banks: readonly PcrSelection[], auth: Uint8Array): TpmCommand<void> {
  const writer = new TpmWriter()
  writePcrSelection(writer, banks)
  return {
    name: "TPM2_PCR_Allocate",
    code: TPM_CC.PCR_ALLOCATE,
    handles: [TPM_RH.PLATFORM],
    auths: [auth],
    parameters: writer.done(),
    decode: (reader) => {
      const success = reader.u8("allocationSuccess")
      reader.u32be("maxPCR")
      reader.u32be("sizeNeeded")
      reader.u32be("sizeAvailable")
      if (success !== 1) throw reader.error("allocationSuccess", "the tpm cannot hold this allocation")
    },
  }
}
