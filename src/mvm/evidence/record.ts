/**
 * @module mvm/evidence/record
 *
 * What an appraisal rested on, as data that can be kept, exported and judged again by somebody else: the quote with
 * everything its qualifying data is made of, how much of the boot's log it covers, and which reference values were
 * in force. Logs and reference values are kept beside it, once each.
 */

import { toHex } from "../../lib/bytes.ts"
import type { Check } from "../../tcb/measurement/check.ts"
import type { Launch } from "../../tcb/measurement/launch.ts"
import type { EvidenceFields } from "../../tcb/measurement/qualifying-data.ts"
import type { UntrustedQuote } from "../../tcb/measurement/quote.ts"
import type { MeasurementKind } from "../../tcb/measurement/reference-table.ts"

/** Failed checks that a record repeats; all of them follow from what is kept. */
const MAX_FAILED = 20

/** The evidence of one VM at one moment. JSON; byte strings are lower-case hex. */
export interface EvidenceRecord {
  readonly vm: string
  readonly uuid: string
  readonly kind: MeasurementKind
  readonly bootId: string
  /** Which boot of the vTPM the log belongs to. */
  readonly resetCount: number
  readonly timeMs: number
  readonly attestationKey: string
  readonly purpose: EvidenceFields["purpose"]
  readonly nonce: string
  readonly epoch: string
  readonly binding: string
  readonly quote: { readonly attest: string; readonly signature: string; readonly pcrs: readonly string[] }
  /** The part of the boot's measurement log that leads to the quoted PCR 10. */
  readonly logBytes: number
  /** The firmware's event log is kept and was found to explain the PCRs. */
  readonly hasEvents: boolean
  readonly launch: Launch | null
  /** SHA-256 of the reference file's text; null when there were no values. */
  readonly reference: string | null
  readonly verdict: "trusted" | "untrusted" | "no_reference"
  readonly failed: readonly Pick<Check, "name" | "subject" | "message">[]
}

/** A decision about a channel: granted, with DECISION and its signature, or refused. */
export interface ChannelEvidence {
  readonly channel: string
  readonly timeMs: number
  readonly decision: string | null
  readonly decisionSignature: string | null
  /** Why it was refused; null when it was granted. */
  readonly refused: string | null
  /** Asker first; an end that was not measured any more is left out. */
  readonly ends: readonly EvidenceRecord[]
}

export interface EvidenceParts extends Omit<EvidenceFields, "vmUuid"> {
  readonly vm: { readonly name: string; readonly uuid: string; readonly attestationKey: Uint8Array }
  readonly kind: MeasurementKind
  readonly bootId: string
  readonly resetCount: number
  readonly quote: UntrustedQuote
  readonly logBytes: number
  readonly hasEvents: boolean
  readonly launch: Launch | undefined
  readonly reference: string | undefined
  readonly verdict: EvidenceRecord["verdict"]
  readonly checks: readonly Check[]
}

/** The same evidence, judged once more: by other values, or with the firmware's log. */
export function rejudged(
  record: EvidenceRecord,
  now: Pick<EvidenceParts, "hasEvents" | "reference" | "verdict" | "checks">,
): EvidenceRecord {
  const { hasEvents, reference, verdict, checks } = now
  return { ...record, hasEvents, reference: reference ?? null, verdict, failed: failedOf(checks) }
}

/** The record of evidence that was just appraised. */
export function evidenceRecord(parts: EvidenceParts): EvidenceRecord {
  const { vm, quote } = parts
  return {
    vm: vm.name,
    uuid: vm.uuid,
    kind: parts.kind,
    bootId: parts.bootId,
    resetCount: parts.resetCount,
    timeMs: Date.now(),
    attestationKey: toHex(vm.attestationKey),
    purpose: parts.purpose,
    nonce: toHex(parts.nonce),
    epoch: toHex(parts.epoch),
    binding: toHex(parts.binding),
    quote: {
      attest: toHex(quote.attest),
      signature: toHex(quote.signature),
      pcrs: quote.pcrs.map(toHex),
    },
    logBytes: parts.logBytes,
    hasEvents: parts.hasEvents,
    launch: parts.launch ?? null,
    reference: parts.reference ?? null,
    verdict: parts.verdict,
    failed: failedOf(parts.checks),
  }
}

function failedOf(checks: readonly Check[]): EvidenceRecord["failed"] {
  return checks
    .filter((check) => !check.ok)
    .slice(0, MAX_FAILED)
    .map(({ name, subject, message }) => ({ name, subject, message }))
}
