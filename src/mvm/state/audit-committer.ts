/**
 * @module mvm/state/audit-committer
 *
 * Group commit for the audit log: rows that arrive in the same turn of the event loop share one transaction, and
 * those that arrive during a flush share the next. A promise resolves only when its row is on disk.
 */

import { asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import type { AuditEntry, AuditLog, AuditSubject } from "./audit.ts"

interface Row extends AuditEntry {
  resolve(): void
  reject(error: unknown): void
}

export class AuditCommitter {
  readonly log: AuditLog
  readonly #errors: Log
  #queue: Row[] = []
  /** Rows that are not on disk yet, by performance.now() of their coming; the oldest first. */
  readonly #waiting = new Map<Promise<void>, number>()

  constructor(log: AuditLog, errors: Log) {
    this.log = log
    this.#errors = errors
  }

  /** How long the oldest row has waited for the disk; 0 when none waits. */
  get waitingMs(): number {
    const [sinceMs] = this.#waiting.values()
    return sinceMs === undefined ? 0 : performance.now() - sinceMs
  }

  /**
   * Resolves when the row, and what `alongside` writes to the same database, is durable.
   *
   * @throws MvmError `state` or `no_space` when it cannot be written.
   */
  commit(kind: string, subject: AuditSubject, alongside?: () => void): Promise<void> {
    const committed = new Promise<void>((resolve, reject) => {
      this.#queue.push({ kind, subject, alongside, resolve, reject })
      if (this.#queue.length === 1) setImmediate(() => this.flush())
    })
    this.#waiting.set(committed, performance.now())
    const settled = (): void => void this.#waiting.delete(committed)
    committed.then(settled, settled)
    // Callers that only report (a refusal, an abort) do not wait; the failure is still said once.
    committed.catch((error: unknown) => {
      this.#errors.error("audit_write", { message: asMvmError(error).message })
    })
    return committed
  }

  /** Put what is queued into the log now; it is on disk when the promises of its rows say so. */
  flush(): void {
    const rows = this.#queue
    this.#queue = []
    if (rows.length === 0 || this.#write(rows)) return
    // One row that cannot be written must not take those with it that came in the same turn.
    for (const row of rows) this.#write([row])
  }

  /** @returns false for several rows of which one cannot be written: nothing happened to any of them */
  #write(rows: readonly Row[]): boolean {
    let synced: Promise<void>
    try {
      synced = this.log.appendUnsynced(rows)
    } catch (error) {
      if (rows.length > 1) return false
      for (const row of rows) row.reject(error)
      return true
    }
    synced.then(
      () => rows.forEach((row) => row.resolve()),
      (error: unknown) => rows.forEach((row) => row.reject(error)),
    )
    return true
  }
}
