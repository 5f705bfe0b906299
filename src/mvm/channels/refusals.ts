/**
 * @module mvm/channels/refusals
 *
 * Refused requests in audit and log. A VM makes them at will, so after the first of a while they are counted, and
 * the count is what is written: no refusal goes unrecorded, and no VM fills the disk with them.
 */

import type { AuditCommitter } from "../state/audit-committer.ts"
import type { ErrorCode } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { TokenBucket } from "../token-bucket.ts"

/** Rows of its own that a member's refusals get at once, and a second. */
const BURST = 64
const PER_SECOND = 1 / 30
/** A count is written after this time at the latest. */
const COUNT_MS = 60_000

export interface Refusal {
  readonly target: string
  readonly service: string
  /** Hex; null when none was made */
  readonly channel: string | null
  readonly code: ErrorCode
  readonly message: string
}

interface Ledger {
  readonly name: string
  readonly bucket: TokenBucket
  readonly counted: Map<ErrorCode, number>
  timer: ReturnType<typeof setTimeout> | undefined
}

export class Refusals {
  readonly #audit: AuditCommitter
  readonly #log: Log
  readonly #ledgers = new Map<string, Ledger>()

  constructor(audit: AuditCommitter, log: Log) {
    this.#audit = audit
    this.#log = log
  }

  add(asker: { readonly uuid: string; readonly name: string }, refusal: Refusal): void {
    const ledger = this.#ledgerOf(asker)
    if (ledger.bucket.take()) {
      this.#write(ledger)
      const { target, service, code, message } = refusal
      this.#log.warn("open_refused", { vm: asker.name, target, service, code, message })
      void this.#audit.commit("refused", { asker: asker.name, ...refusal })
      return
    }
    ledger.counted.set(refusal.code, (ledger.counted.get(refusal.code) ?? 0) + 1)
    ledger.timer ??= setTimeout(() => this.#write(ledger), COUNT_MS)
  }

  /** Writes all counts now. */
  flush(): void {
    for (const ledger of this.#ledgers.values()) this.#write(ledger)
  }

  #ledgerOf({ uuid, name }: { readonly uuid: string; readonly name: string }): Ledger {
    let ledger = this.#ledgers.get(uuid)
    if (!ledger) {
      ledger = { name, bucket: new TokenBucket(BURST, PER_SECOND), counted: new Map(), timer: undefined }
      this.#ledgers.set(uuid, ledger)
    }
    return ledger
  }

  #write(ledger: Ledger): void {
    clearTimeout(ledger.timer)
    ledger.timer = undefined
    if (ledger.counted.size === 0) return
    const codes = Object.fromEntries(ledger.counted)
    const count = [...ledger.counted.values()].reduce((sum, one) => sum + one, 0)
    ledger.counted.clear()
    this.#log.warn("open_refused_more", { vm: ledger.name, count })
    void this.#audit.commit("refused_more", { asker: ledger.name, count, codes })
  }
}
