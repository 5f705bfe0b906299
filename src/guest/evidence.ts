/**
 * @module guest/evidence
 *
 * Evidence is a quote and the log that explains its PCR 10, in this order: quote first, then read the log, which
 * may hold more by then. Evidence leaves in the order it was made, since the verifier's running hash only moves
 * forward; {@link EvidenceMaker.make} therefore sends within its turn.
 */

import { LOG_CHUNK_BYTES, type Quote } from "../wire/messages.ts"
import type { Link } from "../wire/link.ts"
import { evidenceQualifyingData } from "../tcb/measurement/qualifying-data.ts"
import type { MeasurementSource } from "./measurement-source.ts"
import type { GuestVtpm } from "./vtpm.ts"

export interface EvidenceRequest {
  readonly purpose: "request" | "answer" | "periodic"
  /** 32 bytes, chosen by the MVM */
  readonly nonce: Uint8Array
  /** 32 bytes, see tcb/binding */
  readonly binding: Uint8Array
  /** Where the MVM's copy of the log ends. */
  readonly logOffset: number
}

export class EvidenceMaker {
  readonly #vtpm: GuestVtpm
  readonly #source: MeasurementSource
  readonly #link: Link
  #turn: Promise<unknown> = Promise.resolve()

  constructor(vtpm: GuestVtpm, source: MeasurementSource, link: Link) {
    this.#vtpm = vtpm
    this.#source = source
    this.#link = link
  }

  /** Quote, send the log from where the MVM's copy ends, and let `deliver` send the quote behind it. */
  make<T>(
    who: { vmUuid: Uint8Array; epoch: Uint8Array },
    request: EvidenceRequest,
    deliver: (quote: Quote) => T,
  ): Promise<T> {
    const turn = this.#turn.then(async () => {
      const quote = await this.#vtpm.quote(evidenceQualifyingData({ ...who, ...request }))
      this.#sendLog(request.logOffset)
      return { sent: deliver(quote) }
    })
    this.#turn = turn.catch(() => {})
    // Boxed, so that the turn ends when the quote is sent and not when it is answered.
    return turn.then(({ sent }) => sent)
  }

  /** Evidence asked for twice at the same time sends the same entries twice; the verifier skips what it has. */
  #sendLog(logOffset: number): void {
    const entries = this.#source.read(logOffset)
    for (let at = 0; at < entries.length; at += LOG_CHUNK_BYTES) {
      this.#link.send("LOG", { offset: logOffset + at, entries: entries.subarray(at, at + LOG_CHUNK_BYTES) })
    }
  }
}
