/**
 * @module tpm/attest
 *
 * TPMS_ATTEST of a quote (no other kind), and TPMS_CLOCK_INFO.
 *
 * @spec TPM 2.0 Part 2 §10.12.8 (TPMS_ATTEST), §10.11.1 (TPMS_CLOCK_INFO), §10.12.1 (TPMS_QUOTE_INFO)
 */

import { ByteReader } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import { TPM_ALG, TPM_GENERATED_VALUE, TPM_ST } from "./constants.ts"
import { decodeWhole, readTpm2b } from "./marshal.ts"
import { type PcrSelection, readPcrSelection } from "./pcr-selection.ts"

/** TPM2B_NAME: an algorithm and a digest up to SHA-512. */
const MAX_NAME_BYTES = 66

/** TPM2B_DATA. @spec Part 2 §10.4.3 */
const MAX_EXTRA_DATA_BYTES = 66

const SHA256_BYTES = 32

/** TPMS_CLOCK_INFO. */
export interface ClockInfo {
  /** Milliseconds the TPM has been powered, over its life. */
  clock: bigint
  /** TPM resets (boots) since TPM2_Clear. */
  resetCount: number
  /** Resumes and restarts since the last reset. */
  restartCount: number
  /** No when the clock may have been higher before (after an unclean stop). */
  safe: boolean
}

/** What a quote says. Nothing in it is to be believed before its signature is verified. */
export interface Quote extends ClockInfo {
  /** The caller's qualifying data, up to 66 bytes. */
  extraData: Uint8Array
  firmwareVersion: bigint
  /** Indices in the sha256 bank, ascending. */
  pcrSelection: number[]
  /** SHA-256 over the selected PCRs, lowest index first. */
  pcrDigest: Uint8Array
  /** Qualified Name of the key that signed. */
  qualifiedSigner: Uint8Array
}

/**
 * Decodes a whole TPMS_ATTEST as a quote over the sha256 bank.
 *
 * Trust: the bytes come from a guest, and until the signature of a restricted key is checked anybody may have
 * written them.
 *
 * @throws MvmError `evidence_quote_magic` when the magic or the attestation type is another,
 *   `evidence_pcr_bank` when the selection is not of the sha256 bank alone, `tpm` when malformed.
 */
export function parseQuote(attest: Uint8Array): Quote {
  const reader = new ByteReader(attest, "TPMS_ATTEST", "tpm")
  const magic = reader.u32be("magic")
  if (magic !== TPM_GENERATED_VALUE) {
    throw new MvmError(
      "evidence_quote_magic",
      `TPMS_ATTEST.magic: 0x${magic.toString(16)}, not made by a tpm`,
    )
  }
  const type = reader.u16be("type")
  if (type !== TPM_ST.ATTEST_QUOTE) {
    throw new MvmError("evidence_quote_magic", `TPMS_ATTEST.type: 0x${type.toString(16)} is not a quote`)
  }
  const qualifiedSigner = readTpm2b(reader, "qualifiedSigner", MAX_NAME_BYTES)
  const extraData = readTpm2b(reader, "extraData", MAX_EXTRA_DATA_BYTES)
  const clockInfo = readClockInfo(reader)
  const firmwareVersion = reader.u64be("firmwareVersion")
  const selections = readPcrSelection(reader)
  const pcrDigest = readTpm2b(reader, "pcrDigest", SHA256_BYTES)
  reader.end()
  if (pcrDigest.length !== SHA256_BYTES) {
    throw reader.error("pcrDigest.size", `${pcrDigest.length} bytes, ${SHA256_BYTES} expected`)
  }
  const pcrSelection = sha256Bank(selections)
  return { ...clockInfo, extraData, firmwareVersion, pcrSelection, pcrDigest, qualifiedSigner }
}

export function readClockInfo(reader: ByteReader): ClockInfo {
  const clock = reader.u64be("clockInfo.clock")
  const resetCount = reader.u32be("clockInfo.resetCount")
  const restartCount = reader.u32be("clockInfo.restartCount")
  const safe = reader.u8("clockInfo.safe")
  if (safe > 1) throw reader.error("clockInfo.safe", `${safe} is neither no nor yes`)
  return { clock, resetCount, restartCount, safe: safe === 1 }
}

/** Decodes a whole TPMS_CLOCK_INFO. @throws MvmError `tpm` */
export function decodeClockInfo(bytes: Uint8Array): ClockInfo {
  return decodeWhole(bytes, "TPMS_CLOCK_INFO", readClockInfo)
}

function sha256Bank(selections: readonly PcrSelection[]): number[] {
  const [only] = selections
  if (selections.length !== 1 || only === undefined || only.hash !== TPM_ALG.SHA256) {
    const banks = selections.map(({ hash }) => `0x${hash.toString(16)}`).join(", ") || "none"
    throw new MvmError("evidence_pcr_bank", `TPMS_ATTEST.pcrSelect: banks ${banks}, sha256 alone expected`)
  }
  return only.pcrs
}
