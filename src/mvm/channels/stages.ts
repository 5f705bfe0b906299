/**
 * @module mvm/channels/stages
 *
 * How long the steps of one opening took at the MVM. Some overlap: both ends may prove themselves at once.
 */

import type { Fields } from "../../wire/link.ts"

/** By performance.now(). */
type Moment = number

export class Stages {
  readonly #begun: Moment = performance.now()
  #challenged: Moment = 0
  #decided: Moment = 0
  #policyMs = 0
  #appraisalMs = 0
  #answerMs = 0
  #grantMs = 0

  /** The policy allows it, the answerer was found, and the region is there. */
  allocated(): void {
    this.#policyMs = performance.now() - this.#begun
  }

  challenged(): void {
    this.#challenged = performance.now()
  }

  /** The answerer's evidence came. */
  answered(): void {
    this.#answerMs = performance.now() - this.#challenged
  }

  /** The evidence of one end is judged by `work`. */
  appraise<T>(work: () => T): T {
    const begun = performance.now()
    try {
      return work()
    } finally {
      this.#appraisalMs += performance.now() - begun
    }
  }

  deciding(): void {
    this.#decided = performance.now()
  }

  /** The answerer accepted, and the decision is on disk. */
  granted(): void {
    this.#grantMs = performance.now() - this.#decided
  }

  /** In whole microseconds. */
  get times(): Omit<Fields<"STAGES">, "channelId"> {
    const us = (milliseconds: number): number => Math.round(milliseconds * 1000)
    return {
      policyUs: us(this.#policyMs),
      appraisalUs: us(this.#appraisalMs),
      answerUs: us(this.#answerMs),
      grantUs: us(this.#grantMs),
    }
  }
}
