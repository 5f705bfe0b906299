/**
 * @module mvm/evidence/verify
 *
 * Exported evidence judged again without the MVM, from the file alone and the MVM's public key: its signature and
 * the decision's, each quote's signature, what the quote is bound to, the log's way to PCR 10, boot_aggregate, and
 * every entry against the reference values that were in force.
 */

import { equalBytes, fromHex, toHex } from "../../lib/bytes.ts"
import { P256_PUBLIC_BYTES, p256Verify, sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { parseDecision, type Decision } from "../../channel/decision.ts"
import { Appraiser, type Appraisal } from "../../tcb/measurement/appraise.ts"
import { checkEventLog, parseEventLog, type FirmwareEvent } from "../../tcb/measurement/event-log.ts"
import { evidenceQualifyingData } from "../../tcb/measurement/qualifying-data.ts"
import { IMA_PCR, verifyQuote, type VerifiedQuote } from "../../tcb/measurement/quote.ts"
import type { ReferenceTable } from "../../tcb/measurement/reference-table.ts"
import { MeasurementLog } from "../../tcb/measurement/replay.ts"
import { bundleMessage, hex, parseBody, parseBundle, type Bundle, type EvidenceBody } from "./bundle.ts"
import type { EvidenceRecord } from "./record.ts"
import { parseReference } from "../reference/file.ts"
import { uuidBytes } from "../session.ts"

export interface VerifiedEnd {
  readonly record: EvidenceRecord
  readonly appraisal: Appraisal
  readonly entries: number
}

export interface VerifiedEvidence {
  /** 65-byte point that signed */
  readonly mvmKey: Uint8Array
  readonly body: EvidenceBody
  readonly decision: Decision | undefined
  readonly ends: readonly VerifiedEnd[]
}

/**
 * Judges an exported file again. Evidence that holds may still be that of an untrusted VM: see the ends' appraisals.
 *
 * Trust: everything in `text`; `mvmKey`, when given, is what the caller knows of its own. Without it the file's own
 * key counts, and the result says only that the file fits together.
 *
 * @throws MvmError `signature` (not this MVM's, or changed since), `evidence_*` as at the appraisal, each naming the
 *   VM, or `untrusted` where the verdict does not follow from the evidence.
 */
export function verifyEvidence(text: string, mvmKey?: Uint8Array): VerifiedEvidence {
  try {
    return verify(text, mvmKey)
  } catch (cause) {
    if (cause instanceof MvmError) throw cause
    // What a record of ours never looks like, signed by a key that the file brought itself.
    throw new MvmError("evidence_malformed", "evidence: a field is of another form", { cause })
  }
}

function verify(text: string, mvmKey: Uint8Array | undefined): VerifiedEvidence {
  const bundle = parseBundle(text)
  const key = mvmKey ?? bundle.mvmKey
  if (key.length !== P256_PUBLIC_BYTES) throw new MvmError("usage", "mvm key: 65 bytes expected")
  if (!p256Verify(key, bundleMessage(bundle.bodyText), bundle.signature)) {
    throw new MvmError("signature", "evidence: not signed by the mvm key", {
      hint: mvmKey ? "is it the key of the mvm that exported it? mvm status --json shows it" : undefined,
    })
  }
  const body = parseBody(bundle.bodyText)
  if (bundle.logs.length !== body.ends.length) {
    throw new MvmError(
      "evidence_malformed",
      `evidence logs: ${bundle.logs.length} for ${body.ends.length} ends`,
    )
  }
  const decision = verifyDecision(body, key)
  const ends = body.ends.map((record, index) => verifyEnd(record, bundle, index))
  return { mvmKey: key, body, decision, ends }
}

/** The decision's own signature, and that it is about these VMs and boots. */
function verifyDecision(body: EvidenceBody, mvmKey: Uint8Array): Decision | undefined {
  if (body.decision === null) return undefined
  const bytes = hex(body.decision, undefined, "body.decision")
  if (!p256Verify(mvmKey, bytes, hex(body.decisionSignature, 64, "body.decisionSignature"))) {
    throw new MvmError("signature", "evidence: the decision is not signed by the mvm key")
  }
  const decision = parseDecision(bytes)
  if (toHex(decision.channelId) !== body.channel) {
    throw new MvmError("evidence_malformed", "evidence body.channel: not the decision's")
  }
  for (const [index, said] of [decision.asker, decision.answerer].entries()) {
    const record = body.ends[index]
    if (!record || !equalBytes(uuidBytes(record.uuid), said.uuid) || record.bootId !== toHex(said.bootId)) {
      throw new MvmError(
        "evidence_malformed",
        `evidence body.ends[${index}]: not of ${said.name} in the decision`,
      )
    }
  }
  return decision
}

function verifyEnd(record: EvidenceRecord, bundle: Bundle, index: number): VerifiedEnd {
  try {
    const { measurements, events: eventBytes } = bundle.logs[index]!
    const quote = quoteOf(record)
    const log = new MeasurementLog()
    log.add(measurements, 0)
    const entries = log.match(quote.pcrs[IMA_PCR]!)
    if (log.matchedOffset !== measurements.length || log.matchedOffset !== record.logBytes) {
      throw new MvmError("evidence_log_mismatch", "log: goes on past the quoted pcr 10")
    }
    const events = eventsOf(record, eventBytes, quote)
    const table = tableOf(record, bundle)
    const appraiser = new Appraiser({
      table,
      vm: record.vm,
      kind: record.kind,
      launch: record.launch ?? undefined,
    })
    appraiser.events = events
    const appraisal = appraiser.appraise(quote, entries)
    if (appraisal.verdict !== record.verdict) {
      const failed = appraisal.checks.find((check) => !check.ok)
      throw new MvmError(
        "untrusted",
        `the evidence says ${appraisal.verdict}, the record ${record.verdict}${failed ? `: ${failed.message}` : ""}`,
      )
    }
    return { record, appraisal, entries: entries.length }
  } catch (error) {
    if (!(error instanceof MvmError)) throw error
    throw new MvmError(error.code, `${record.vm}: ${error.message}`, { cause: error, hint: error.hint })
  }
}

function quoteOf(record: EvidenceRecord): VerifiedQuote {
  const { purpose } = record
  if (purpose !== "request" && purpose !== "answer" && purpose !== "periodic") {
    throw new MvmError("evidence_malformed", "purpose: unknown")
  }
  const quote = verifyQuote(
    {
      attest: hex(record.quote.attest, undefined, "quote.attest"),
      signature: hex(record.quote.signature, 64, "quote.signature"),
      pcrs: record.quote.pcrs.map((value, index) => hex(value, 32, `quote.pcrs[${index}]`)),
    },
    {
      attestationKey: hex(record.attestationKey, P256_PUBLIC_BYTES, "attestationKey"),
      qualifyingData: evidenceQualifyingData({
        purpose,
        nonce: hex(record.nonce, 32, "nonce"),
        vmUuid: uuidBytes(record.uuid),
        epoch: hex(record.epoch, 16, "epoch"),
        binding: hex(record.binding, 32, "binding"),
      }),
    },
  )
  if (quote.clock.resetCount === record.resetCount) return quote
  throw new MvmError(
    "evidence_reset",
    `quote.clockInfo: resetCount is ${quote.clock.resetCount}, not ${record.resetCount}`,
  )
}

function eventsOf(
  record: EvidenceRecord,
  bytes: Uint8Array | undefined,
  quote: VerifiedQuote,
): FirmwareEvent[] | undefined {
  if (!record.hasEvents) return undefined
  if (bytes === undefined) throw new MvmError("evidence_event_log", "event log: missing")
  const events = parseEventLog(bytes)
  checkEventLog(events, quote.pcrs)
  return events
}

function tableOf(record: EvidenceRecord, bundle: Bundle): ReferenceTable | undefined {
  if (record.reference === null) return undefined
  const bytes = bundle.references.get(record.reference)
  if (bytes === undefined || !equalBytes(sha256(bytes), fromHex(record.reference))) {
    throw new MvmError("evidence_malformed", `reference values ${record.reference}: missing or others`)
  }
  return parseReference(bytes)
}
