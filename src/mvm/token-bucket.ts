/**
 * @module mvm/token-bucket
 *
 * How often something may happen for one member: at once, and from then on.
 */

export class TokenBucket {
  readonly #most: number
  readonly #perMs: number
  #tokens: number
  #atMs = performance.now()

  /** @param most at once */
  constructor(most: number, perSecond: number) {
    this.#most = most
    this.#perMs = perSecond / 1000
    this.#tokens = most
  }

  /** Whether it may happen now; then it has. */
  take(nowMs = performance.now()): boolean {
    this.#tokens = Math.min(this.#most, this.#tokens + Math.max(0, nowMs - this.#atMs) * this.#perMs)
    this.#atMs = nowMs
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
