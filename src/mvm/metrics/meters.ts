/**
 * @module mvm/metrics/meters
 *
 * What the MVM counts as it happens. Labels have few values, known beforehand: nothing that a VM chooses becomes one.
 */

import { CODES, type ErrorCode } from "../../lib/errors.ts"
import { Counter, Histogram, type Family } from "./exposition.ts"

const SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5]

export class Meters {
  readonly #opens = new Counter(
    "mvm_opens_total",
    "Requests for a channel, by what came of them.",
    "result",
    ["opened", "refused"],
  )
  readonly #refusals = new Counter(
    "mvm_refusals_total",
    "Refused requests for a channel, by error code.",
    "code",
    Object.keys(CODES),
  )
  readonly #openSeconds = new Histogram(
    "mvm_open_duration_seconds",
    "From the region of a channel to the open channel.",
    SECONDS,
  )
  readonly #appraisals = new Counter("mvm_appraisals_total", "Appraised evidence, by verdict.", "verdict", [
    "trusted",
    "refused",
  ])
  readonly #appraisalSeconds = new Histogram(
    "mvm_appraisal_duration_seconds",
    "Verification of a quote and appraisal of the log behind it.",
    SECONDS,
  )
  readonly #content = new Counter(
    "mvm_content_bytes_total",
    "Content that senders stated at the end of a direction.",
  )
  readonly #receipts = new Counter("mvm_receipts_total", "Directions whose receiver confirmed the whole.")
  readonly #revocations = new Counter("mvm_revocations_total", "Channels that were ended while they ran.")

  /** @param milliseconds since its region was made */
  opened(milliseconds: number): void {
    this.#opens.add(1, "opened")
    this.#openSeconds.observe(milliseconds / 1000)
  }

  refused(code: ErrorCode): void {
    this.#opens.add(1, "refused")
    this.#refusals.add(1, code)
  }

  appraised(milliseconds: number, isTrusted: boolean): void {
    this.#appraisals.add(1, isTrusted ? "trusted" : "refused")
    this.#appraisalSeconds.observe(milliseconds / 1000)
  }

  /** A sender's FIN is on disk. */
  finished(contentBytes: number): void {
    this.#content.add(contentBytes)
  }

  /** A receipt is on disk. */
  received(): void {
    this.#receipts.add()
  }

  revoked(): void {
    this.#revocations.add()
  }

  families(): Family[] {
    const refusals = this.#refusals.family()
    return [
      this.#opens.family(),
      // Most codes never refuse anything.
      { ...refusals, samples: refusals.samples.filter(({ value }) => value > 0) },
      this.#openSeconds.family(),
      this.#appraisals.family(),
      this.#appraisalSeconds.family(),
      this.#content.family(),
      this.#receipts.family(),
      this.#revocations.family(),
    ]
  }
}
