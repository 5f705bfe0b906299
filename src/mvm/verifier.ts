/**
 * @module mvm/verifier
 *
 * The MVM's opinion of one VM: the running copy of its measurement log, the clock of its vTPM, and the verdict.
 * A verdict of untrusted stays until a boot the MVM saw or the operator's approval.
 */

import { MvmError, asMvmError } from "../lib/errors.ts"
import { Appraiser, type Appraisal, type ReferenceValues } from "../tcb/measurement/appraise.ts"
import type { Check } from "../tcb/measurement/check.ts"
import { checkEventLog, parseEventLog, type FirmwareEvent } from "../tcb/measurement/event-log.ts"
import { launchMeasured, type Launch } from "../tcb/measurement/launch.ts"
import type { Measured } from "../tcb/measurement/reference-table.ts"
import { KeptClock } from "./kept-clock.ts"
import { evidenceRecord, rejudged, type EvidenceRecord } from "./evidence/record.ts"
import type { BootName, EvidenceStore } from "./evidence/store.ts"
import { formatReference } from "./reference/file.ts"
import { isUnseenReset, type ClockReading } from "../tcb/measurement/clock.ts"
import { evidenceQualifyingData } from "../tcb/measurement/qualifying-data.ts"
import { IMA_PCR, verifyQuote, type VerifiedQuote } from "../tcb/measurement/quote.ts"
import { MeasurementLog, type SeenMeasurement } from "../tcb/measurement/replay.ts"
import type { Quote } from "../wire/messages.ts"
import type { VmRecord } from "./state/registry.ts"
import { uuidBytes, type Session } from "./session.ts"

export interface Evidence {
  readonly purpose: "request" | "answer" | "periodic"
  readonly nonce: Uint8Array
  readonly binding: Uint8Array
  readonly quote: Quote
}

declare const appraised: unique symbol

/** Evidence that verified and a VM that is trusted: the only way to a decision. */
export interface AppraisedEvidence {
  readonly [appraised]: true
  readonly verdict: "trusted"
  readonly kind: "kernel" | "agent"
  /** What it rested on. */
  readonly record: EvidenceRecord
}

/** What is known of a boot before its first evidence. */
export interface BootFacts {
  /** The last reading of this very boot, where an earlier life of the MVM took one. */
  readonly clock?: ClockReading | undefined
  /** How the MVM started it. */
  readonly launch?: Launch | undefined
}

/** The state of the verdict, for people. */
export interface Opinion {
  readonly verdict: "trusted" | "untrusted" | "no_reference" | "unknown"
  readonly code: string | undefined
  readonly message: string | undefined
  readonly checks: readonly Check[]
  readonly entries: number
  readonly sinceMs: number
}

export interface VerifierParts {
  /** The values this VM is held against now. */
  reference(kind: "kernel" | "agent"): ReferenceValues
  /** The VM turned untrusted: its channels end. */
  onUntrusted(error: MvmError): void
  /** The TPM started again, or went back, where the MVM saw no reset: the VM itself must end. */
  onUnseenReset(error: MvmError): void
  /** A reading to keep: what must never go backwards, across lives of the MVM too. */
  onClock(clock: ClockReading): void
  /** A distrust ended by the operator's approval. */
  onApproved(): void
  /** How long one appraisal took, and whether the VM was found trusted. */
  onAppraised?(milliseconds: number, isTrusted: boolean): void
  /** Where logs and reference values are kept for whoever asks later. */
  readonly store: EvidenceStore
}

export class Verifier {
  readonly #record: VmRecord
  readonly #parts: VerifierParts
  #log: MeasurementLog
  #launch: Launch | undefined
  #events: readonly FirmwareEvent[] | undefined
  /** Of the firmware's log: asked for once a boot. */
  #eventsDue = true
  #appraiser: Appraiser | undefined
  /** SHA-256 (hex) of the values that the appraiser holds. */
  #reference: string | undefined
  #lastRecord: EvidenceRecord | undefined
  #quote: VerifiedQuote | undefined
  /** The resetCount of the boot the MVM started; a quote must show exactly this. */
  #expectedReset: number | undefined
  readonly #clock: KeptClock
  #sticky: MvmError | undefined
  #appraisal: Appraisal | undefined
  #sinceMs = Date.now()
  #kind: "kernel" | "agent" = "kernel"

  constructor(record: VmRecord, parts: VerifierParts) {
    this.#record = record
    this.#parts = parts
    this.#clock = new KeptClock((clock) => parts.onClock(clock))
    this.#log = this.#freshLog()
  }

  /** Where the log should continue, bytes. */
  get nextOffset(): number {
    return this.#log.nextOffset
  }

  /** What the running boot was found to contain, first seen first. */
  get seen(): SeenMeasurement[] {
    return [...this.#log.seen]
  }

  /** How the MVM started this boot, where it did. */
  get launch(): Launch | undefined {
    return this.#launch
  }

  /** {@link seen}, with how the MVM started the boot: what reference values are made of. */
  get measured(): Measured[] {
    return [...(this.#launch ? launchMeasured(this.#launch) : []), ...this.#log.seen]
  }

  /** What the last appraisal of this boot rested on, whatever came of it. */
  get lastRecord(): EvidenceRecord | undefined {
    return this.#lastRecord
  }

  /** The firmware's event log of this boot is still to be asked for. */
  get wantsEvents(): boolean {
    return this.#eventsDue && this.#kind === "kernel" && this.#quote !== undefined
  }

  /** The last verified quote of this boot. */
  get quote(): VerifiedQuote | undefined {
    return this.#quote
  }

  get opinion(): Opinion {
    const untrusted = this.#sticky
    const verdict = untrusted ? "untrusted" : (this.#appraisal?.verdict ?? "unknown")
    return {
      verdict,
      code: untrusted?.code,
      message: untrusted?.message,
      checks: this.#appraisal?.checks ?? [],
      entries: this.#log.entryCount,
      sinceMs: this.#sinceMs,
    }
  }

  /** The MVM started the VM, or saw it running from before its own restart: a new log, a new chance. */
  expectBoot(resetCount: number, { clock, launch }: BootFacts = {}): void {
    this.#expectedReset = resetCount
    this.#log = this.#freshLog()
    this.#launch = launch
    this.#events = undefined
    this.#eventsDue = true
    this.#lastRecord = undefined
    this.#appraiser = undefined
    this.#appraisal = undefined
    this.#quote = undefined
    this.#clock.begin(clock)
    this.#sticky = undefined
    this.#sinceMs = Date.now()
  }

  /** Nobody waits for a decision that is known already. @throws MvmError the distrust in force. */
  refuseDistrusted(): void {
    if (this.#sticky) throw this.#sticky
  }

  /** Nothing that this boot still proves counts: the MVM ends it. */
  refuseBoot(error: MvmError): void {
    this.#distrust(error)
  }

  /** A boot that was found untrusted before the MVM itself restarted stays so. */
  restoreDistrust(error: MvmError, sinceMs: number): void {
    this.#sticky = error
    this.#sinceMs = sinceMs
  }

  /** A new life of the link: what no quote has proven is asked for again. */
  beginEpoch(session: Session): void {
    this.#kind = session.kind
    this.#log.dropPending()
  }

  /**
   * A piece of the log; not looked at while the evidence of this boot is broken, as nothing would come of it.
   *
   * Trust: any bytes.
   *
   * @throws MvmError `evidence_log_offset` and alike.
   */
  addLog(offset: number, entries: Uint8Array): void {
    if (!this.#isBroken) this.#log.add(entries, offset)
  }

  /**
   * The firmware's event log of this boot; empty when the VM has none. It explains the PCRs, and proves nothing that
   * they do not.
   *
   * Trust: any bytes.
   *
   * @throws MvmError `evidence_event_log` when it does not lead to the quoted PCRs: the VM is not trusted then.
   */
  addEvents(bytes: Uint8Array): void {
    const quote = this.#quote
    if (!quote || !this.#eventsDue) return
    this.#eventsDue = false
    if (bytes.length === 0) return
    try {
      const events = parseEventLog(bytes)
      checkEventLog(events, quote.pcrs)
      this.#events = events
    } catch (error) {
      throw this.#distrust(asMvmError(error, "evidence_event_log"))
    }
    this.#parts.store.addEvents(this.#boot(), bytes)
    if (!this.#appraiser) return
    this.#appraiser.events = this.#events
    this.#judgeAgain(this.#appraiser.appraise(quote))
  }

  /**
   * The reference values changed: judge what was seen once more. An approval can end a distrust of the software so,
   * and never one of the evidence itself, which lasts until the next boot.
   */
  reconsider(): void {
    const before = this.#sticky
    if (before?.code === "untrusted") this.#sticky = undefined
    this.#appraiser = undefined
    if (this.#quote) {
      this.#appraiser = this.#freshAppraiser()
      this.#judgeAgain(this.#appraiser.restart(this.#quote, this.seen))
    }
    if (before && !this.#sticky) {
      this.#sinceMs = Date.now()
      this.#parts.onApproved()
    }
  }

  /** Writes the last reading down, before the MVM stops. */
  keepClock(): void {
    this.#clock.keep()
  }

  /**
   * Steps 5 and 6 of the method for a VM: the quote, the log behind it, and the reference values.
   *
   * Trust: everything in `evidence.quote` is the VM's.
   *
   * @throws MvmError `evidence_*` for evidence that does not hold, `untrusted` with the exact file or PCR, or
   *   `no_reference`. A failure stays in force until the next boot or an approval.
   */
  appraise(session: Session, evidence: Evidence): AppraisedEvidence {
    const startedMs = performance.now()
    let isTrusted = false
    try {
      const appraised = this.#appraise(session, evidence)
      isTrusted = true
      return appraised
    } finally {
      this.#parts.onAppraised?.(performance.now() - startedMs, isTrusted)
    }
  }

  #appraise(session: Session, evidence: Evidence): AppraisedEvidence {
    let appraisal: Appraisal
    try {
      const quote = this.#verify(session, evidence)
      if (this.#isBroken) this.refuseDistrusted()
      const entries = this.#log.match(quote.pcrs[IMA_PCR] as Uint8Array)
      this.#quote = quote
      this.#appraiser ??= this.#freshAppraiser()
      appraisal = this.#appraiser.appraise(quote, entries)
      this.#lastRecord = this.#recordOf(session, evidence, appraisal)
    } catch (error) {
      const failure = this.#distrust(asMvmError(error, "evidence_malformed"))
      throw this.#sticky ?? failure
    }
    this.#judge(appraisal)
    if (this.#sticky) throw this.#sticky
    if (appraisal.verdict !== "trusted") throw this.#noReference()
    return { verdict: "trusted", kind: session.kind, record: this.#lastRecord } as AppraisedEvidence
  }

  /** The distrust in force is of the evidence itself: only the next boot ends it. */
  get #isBroken(): boolean {
    return this.#sticky !== undefined && this.#sticky.code !== "untrusted"
  }

  #recordOf(session: Session, evidence: Evidence, appraisal: Appraisal): EvidenceRecord {
    const { name, uuid, keys } = this.#record
    return evidenceRecord({
      ...evidence,
      vm: { name, uuid, attestationKey: keys.attestation },
      kind: session.kind,
      bootId: session.bootId,
      epoch: session.epoch,
      resetCount: this.#boot().resetCount,
      logBytes: this.#log.matchedOffset,
      hasEvents: this.#events !== undefined,
      launch: this.#launch,
      reference: this.#reference,
      verdict: appraisal.verdict,
      checks: appraisal.checks,
    })
  }

  #verify(session: Session, evidence: Evidence): VerifiedQuote {
    const first = this.#clock.last === undefined
    if (first && this.#expectedReset === undefined) {
      throw new MvmError("evidence_reset", "quote.clockInfo: the MVM saw no boot of this VM", {
        hint: "stop and start the vm through the manager",
      })
    }
    const quote = verifyQuote(evidence.quote, {
      attestationKey: this.#record.keys.attestation,
      qualifyingData: evidenceQualifyingData({
        purpose: evidence.purpose,
        nonce: evidence.nonce,
        vmUuid: uuidBytes(this.#record.uuid),
        epoch: session.epoch,
        binding: evidence.binding,
      }),
      lastClock: this.#clock.last,
      resetSeen: first && this.#expectedReset !== undefined ? { resetCount: this.#expectedReset } : false,
    })
    this.#clock.read(quote.clock)
    return quote
  }

  /** The same evidence under other values, or better explained. */
  #judgeAgain(appraisal: Appraisal): void {
    const { verdict, checks } = appraisal
    const now = { hasEvents: this.#events !== undefined, reference: this.#reference, verdict, checks }
    if (this.#lastRecord) this.#lastRecord = rejudged(this.#lastRecord, now)
    this.#judge(appraisal)
  }

  #judge(appraisal: Appraisal): void {
    this.#appraisal = appraisal
    if (appraisal.verdict !== "untrusted") return
    const failed = appraisal.checks.find((check) => !check.ok)
    this.#distrust(
      new MvmError("untrusted", `${this.#record.name}: ${failed?.message ?? "its software is not trusted"}`, {
        hint: `operator: mvm measure explain ${this.#record.name}`,
      }),
    )
  }

  #distrust(error: MvmError): MvmError {
    const named = error.message.startsWith(`${this.#record.name}:`)
      ? error
      : new MvmError(error.code, `${this.#record.name}: ${error.message}`, { cause: error, hint: error.hint })
    // A malformed or misplaced log is broken evidence, not yet proof of other software: the next one may hold.
    const proof = error.code !== "evidence_log_offset" && error.code !== "evidence_nonce"
    // Whatever else is held against it: an approval, a wait, or a better log would not make it the boot that it was.
    if (isUnseenReset(error.code)) this.#parts.onUnseenReset(named)
    // An approval ends a distrust of the software: one of the evidence takes its place.
    const isWorse = named.code !== "untrusted" && !this.#isBroken
    if (proof && (!this.#sticky || isWorse)) {
      this.#sticky = named
      this.#sinceMs = Date.now()
      this.#parts.onUntrusted(named)
    }
    return named
  }

  #noReference(): MvmError {
    return new MvmError("no_reference", `${this.#record.name}: there are no reference values for it`, {
      hint: `operator: mvm measure learn ${this.#record.name}`,
    })
  }

  #freshAppraiser(): Appraiser {
    const values = { ...this.#parts.reference(this.#kind), launch: this.#launch }
    const { table } = values
    this.#reference = table && this.#parts.store.addReference(formatReference(table))
    const appraiser = new Appraiser(values)
    appraiser.events = this.#events
    return appraiser
  }

  #freshLog(): MeasurementLog {
    return new MeasurementLog((bytes, offset) => this.#parts.store.addLog(this.#boot(), offset, bytes))
  }

  #boot(): BootName {
    return { uuid: this.#record.uuid, resetCount: this.#clock.last?.resetCount ?? this.#expectedReset ?? 0 }
  }
}
