/**
 * @module tcb/measurement/quote
 *
 * From an untrusted quote to a {@link VerifiedQuote}. Each thing that can be wrong has a code of its own, so that
 * a replayed quote, one of another VM and one over other PCRs can be told apart by whoever reads the refusal.
 *
 * Only signatures of a restricted attestation key may be checked here: a TPM signs with such a key nothing that
 * starts like an attest and did not come from its own registers.
 */

import { equalBytes } from "../../lib/bytes.ts"
import { p256Verify, sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { parseQuote, type Quote } from "../../tpm/attest.ts"
import { checkClock, type ClockReading, type ResetSeen } from "./clock.ts"

/** The PCR that IMA extends. */
export const IMA_PCR = 10

/** What boot_aggregate digests, so all of it is quoted. @spec Linux security/integrity/ima/ima_crypto.c */
export const BOOT_AGGREGATE_PCRS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

/** Exactly this selection of the sha256 bank is accepted. The value of PCR i is at index i. */
export const QUOTED_PCRS: readonly number[] = [...BOOT_AGGREGATE_PCRS, IMA_PCR]

const PCR_BYTES = 32

declare const verifiedQuote: unique symbol

/** A quote whose signature, nonce, selection and PCR values were checked. */
export interface VerifiedQuote {
  readonly [verifiedQuote]: true
  /** 32 bytes each, PCR i at index i, for {@link QUOTED_PCRS} */
  readonly pcrs: readonly Uint8Array[]
  /** To be remembered for the next quote of this VM. */
  readonly clock: ClockReading
  /** No after an unclean stop of the TPM: information, not failure. */
  readonly safe: boolean
  readonly firmwareVersion: bigint
}

/** As a peer sent it. */
export interface UntrustedQuote {
  /** TPMS_ATTEST, marshalled */
  readonly attest: Uint8Array
  /** 64 bytes, r || s */
  readonly signature: Uint8Array
  /** 32 bytes each, in the order of {@link QUOTED_PCRS} */
  readonly pcrs: readonly Uint8Array[]
}

export interface QuoteExpectation {
  /** 65-byte public point of the VM's restricted attestation key */
  readonly attestationKey: Uint8Array
  /** 32 bytes, see evidenceQualifyingData */
  readonly qualifyingData: Uint8Array
  /** The clock of the last verified quote of this VM over its whole life, if there was one. */
  readonly lastClock?: ClockReading | undefined
  /** Whether a reset was seen since `lastClock`, see checkClock. */
  readonly resetSeen?: ResetSeen | undefined
}

/**
 * Checks signature, structure, nonce, selection, PCR values and clock, in this order.
 *
 * Trust: everything in `untrusted` is the guest's; all but the PCR values is under the TPM's signature, and those
 * are under its digest.
 *
 * @throws MvmError `evidence_quote_signature`, `evidence_quote_magic`, `evidence_malformed`, `evidence_nonce`,
 *   `evidence_pcr_bank`, `evidence_pcr_selection`, `evidence_pcr_digest`, `evidence_reset`, `evidence_rollback`
 * @spec TPM 2.0 Part 3 §18.4 (TPM2_Quote), RFC 9334 §8.4 (evidence)
 */
export function verifyQuote(untrusted: UntrustedQuote, expected: QuoteExpectation): VerifiedQuote {
  const { attest, signature } = untrusted
  if (!p256Verify(expected.attestationKey, attest, signature)) {
    throw new MvmError("evidence_quote_signature", "quote.signature: not by the vm's attestation key")
  }
  const quote = parse(attest)
  if (!equalBytes(quote.extraData, expected.qualifyingData)) {
    throw new MvmError("evidence_nonce", "quote.extraData: made for another request or nonce")
  }
  const selection = quote.pcrSelection
  if (selection.length !== QUOTED_PCRS.length || selection.some((pcr, i) => pcr !== QUOTED_PCRS[i])) {
    throw new MvmError(
      "evidence_pcr_selection",
      `quote.pcrSelect: sha256:${selection.join(",") || "none"}, sha256:${QUOTED_PCRS.join(",")} expected`,
    )
  }
  const pcrs = checkPcrs(untrusted.pcrs, quote.pcrDigest)
  const clock = checkClock(expected.lastClock, quote, expected.resetSeen ?? false)
  const { safe, firmwareVersion } = quote
  return { pcrs, clock, safe, firmwareVersion } as unknown as VerifiedQuote
}

function parse(attest: Uint8Array): Quote {
  try {
    return parseQuote(attest)
  } catch (error) {
    if (error instanceof MvmError && error.code === "tpm") {
      throw new MvmError("evidence_malformed", error.message, { cause: error })
    }
    throw error
  }
}

/** @returns copies, so that a caller's buffer cannot change a verified value */
function checkPcrs(untrusted: readonly Uint8Array[], pcrDigest: Uint8Array): Uint8Array[] {
  if (untrusted.length !== QUOTED_PCRS.length) {
    throw new MvmError(
      "evidence_pcr_digest",
      `quote.pcrs: ${untrusted.length} values, ${QUOTED_PCRS.length} expected`,
    )
  }
  const pcrs = untrusted.map((value, i) => {
    if (value.length === PCR_BYTES) return value.slice()
    throw new MvmError(
      "evidence_pcr_digest",
      `quote.pcrs[${i}]: ${value.length} bytes, ${PCR_BYTES} expected`,
    )
  })
  if (!equalBytes(sha256(...pcrs), pcrDigest)) {
    throw new MvmError("evidence_pcr_digest", "quote.pcrs: not the values the tpm quoted")
  }
  return pcrs
}
