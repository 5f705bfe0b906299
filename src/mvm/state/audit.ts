/**
 * @module mvm/state/audit
 *
 * The audit log: rows that are only ever added, each hashed onto the one before and signed (audit-chain). The
 * newest signed head also lies in a file of its own, so that rows cut off the end of the table are missed. A log
 * found shorter than that head, or another log than it, is continued with an `audit_break` row that keeps the
 * evidence: the MVM goes on working, and `verify` says so from then on.
 *
 * What cannot be seen from inside: table and head file both put back to an older state. Keep an exported head
 * elsewhere for that.
 */

import { equalBytes } from "../../lib/bytes.ts"
import { p256Verify } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import {
  type AuditSubject as Subject,
  canonicalBody,
  type ChainedRow,
  type ChainProblem,
  exportLine,
  GENESIS,
  headMessage,
  rowHash,
  rowProblem,
} from "./audit-chain.ts"
import { AuditHeadFile, type SignedHead } from "./audit-head.ts"
import { type Query, type StateDatabase, storedJson } from "./database.ts"
import type { StateDir } from "./state-dir.ts"

const BREAK = "audit_break"
const KIND = /^[a-z][a-z0-9_.]{0,63}$/
/** Rows read at a time; the event loop turns in between. */
const PAGE_ROWS = 256
const DEFAULT_LIMIT = 100
/** Kinds are looked for among so many of the newest rows: a scan of all would hold the daemon up. */
const RECENT_ROWS = 10_000
/** Fields of a subject that may name a VM. */
const VM_FIELDS = ["vm", "uuid", "asker", "answerer", "from", "to", "source", "target", "by", "peer"]

export type AuditSubject = Subject

export interface AuditEntry {
  readonly kind: string
  readonly subject: AuditSubject
  /** What the database keeps together with the row: all of it, or neither. */
  readonly alongside?: (() => void) | undefined
}

export interface AuditHead {
  readonly sequence: number
  /** 32 bytes. */
  readonly hash: Uint8Array
}

export interface AuditRow extends AuditHead {
  readonly timeMs: number
  readonly kind: string
  readonly subject: Readonly<Record<string, unknown>>
}

export interface AuditFilter {
  readonly sinceMs?: number | undefined
  readonly untilMs?: number | undefined
  readonly kind?: string | undefined
  /** Name or UUID, as any of {@link VM_FIELDS}. */
  readonly vm?: string | undefined
  /** Hex, or its beginning. */
  readonly channel?: string | undefined
  /** Only rows behind this one. */
  readonly after?: number | undefined
  /** The newest so many; default 100. */
  readonly limit?: number | undefined
}

export interface AuditVerification {
  readonly ok: boolean
  readonly rows: number
  readonly head: AuditHead
  readonly firstBad?: ChainProblem
  /** Places where the log was found cut or exchanged when an MVM started. */
  readonly breaks: readonly ChainProblem[]
}

interface StoredRow {
  sequence: bigint
  time_ms: bigint
  kind: string
  body: string
  hash: Uint8Array
  signature: Uint8Array
}

/** @throws MvmError `state`, `no_space`, `io`. */
export function openAudit(stateDir: StateDir, registry: { readonly database: StateDatabase }): AuditLog {
  const log = new AuditLog(stateDir, registry.database)
  log.resume()
  return log
}

export class AuditLog {
  readonly #database: StateDatabase
  readonly #headFile: AuditHeadFile
  readonly #identity: StateDir["identity"]
  /** The newest row, where it is known without looking: nobody else writes here. */
  #committed: AuditHead | undefined
  readonly #insert: Query<never>
  readonly #last: Query<StoredRow>
  readonly #page: Query<StoredRow>
  readonly #list: Query<StoredRow>
  readonly #kinds: Query<{ kind: string }>

  constructor(stateDir: StateDir, database: StateDatabase) {
    this.#database = database
    this.#headFile = new AuditHeadFile(stateDir.auditHeadFile)
    this.#identity = stateDir.identity
    this.#insert = database.prepare("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)")
    this.#last = database.prepare("SELECT * FROM audit ORDER BY sequence DESC LIMIT 1")
    this.#page = database.prepare("SELECT * FROM audit WHERE sequence >= ? ORDER BY sequence LIMIT ?")
    this.#kinds = database.prepare(
      "SELECT DISTINCT kind FROM (SELECT kind FROM audit ORDER BY sequence DESC LIMIT ?)",
    )
    const names = VM_FIELDS.map((field) => `json_extract(body, '$.${field}') = ?4`).join(" OR ")
    this.#list = database.prepare(
      `SELECT * FROM audit WHERE time_ms >= ?1 AND time_ms <= ?2 AND (?3 IS NULL OR kind = ?3)
        AND (?4 IS NULL OR ${names}) AND (?5 IS NULL OR json_extract(body, '$.channel') GLOB ?5 || '*')
        AND sequence > ?6 ORDER BY sequence DESC LIMIT ?7`,
    )
  }

  /** Adds one row; it is on disk when this returns. @throws MvmError `config`, `too_large`, `no_space`, `state`. */
  append(kind: string, subject: AuditSubject): AuditHead {
    return this.appendMany([{ kind, subject }])[0]!
  }

  /** Adds rows that share one commit: all of them, or none. */
  appendMany(entries: readonly AuditEntry[], nowMs = Date.now()): AuditHead[] {
    return this.#database.transaction(() => {
      const { heads, newest } = this.#insertAll(entries, nowMs)
      if (newest) this.#database.afterCommit(() => this.#headFile.write(newest))
      return heads
    })
  }

  /**
   * As {@link appendMany}, without holding up this process: the rows are in the log when this returns, and on disk
   * when its promise resolves.
   */
  appendUnsynced(entries: readonly AuditEntry[]): Promise<void> {
    const { newest } = this.#database.transactionUnsynced(() => this.#insertAll(entries, Date.now()))
    return this.#database.synced().then(() => {
      if (newest) this.#headFile.write(newest)
    })
  }

  head(): AuditHead {
    const row = this.#last.get()
    if (!row) return { sequence: 0, hash: GENESIS }
    const { sequence, hash } = toChained(row)
    return { sequence, hash }
  }

  /** Newest first. */
  list(filter: AuditFilter = {}): AuditRow[] {
    const { sinceMs = 0, untilMs = Number.MAX_SAFE_INTEGER, kind = null, vm = null } = filter
    const { channel = null, after = 0, limit = DEFAULT_LIMIT } = filter
    const rows = this.#list.all(sinceMs, untilMs, kind, vm, channel, after, limit)
    return rows.map((row) => ({
      sequence: Number(row.sequence),
      timeMs: Number(row.time_ms),
      kind: row.kind,
      subject: storedJson(row.body, `audit row ${row.sequence}`) as AuditRow["subject"],
      hash: row.hash,
    }))
  }

  /** Kinds among the newest rows. */
  kinds(): string[] {
    return this.#kinds.all(RECENT_ROWS).map(({ kind }) => kind)
  }

  /** Recomputes every hash and checks every signature up to the newest row there is now. */
  async verify(): Promise<AuditVerification> {
    const end = this.head()
    const breaks: ChainProblem[] = []
    let head: AuditHead = { sequence: 0, hash: GENESIS }
    const bad = (sequence: number, reason: string): AuditVerification => {
      return { ok: false, rows: head.sequence, head, firstBad: { sequence, reason }, breaks }
    }
    while (head.sequence < end.sequence) {
      const page = this.#page.all(head.sequence + 1, PAGE_ROWS)
      for (const stored of page) {
        const row = toChained(stored)
        const reason = rowProblem(row, head.sequence + 1, head.hash, this.#identity.publicKey)
        if (reason) return bad(head.sequence + 1, reason)
        head = { sequence: row.sequence, hash: row.hash }
        if (row.kind === BREAK) breaks.push({ sequence: row.sequence, reason: breakReason(row.body) })
      }
      if (page.length === 0) return bad(head.sequence + 1, `row ${head.sequence + 1} is missing`)
      await Bun.sleep(0)
    }
    const reason = this.#headProblem()
    if (reason) return bad(head.sequence + 1, reason)
    return { ok: breaks.length === 0, rows: head.sequence, head, breaks }
  }

  /** JSON lines without their newlines, oldest first: see `verifyExport`. */
  *exportRows(fromSequence = 1): Generator<string> {
    let previous = GENESIS
    const before = fromSequence > 1 ? this.#page.all(fromSequence - 1, 1)[0] : undefined
    if (before && Number(before.sequence) === fromSequence - 1) previous = before.hash
    for (let next = fromSequence; ;) {
      const page = this.#page.all(next, PAGE_ROWS)
      for (const stored of page) {
        const row = toChained(stored)
        yield exportLine(row, previous)
        previous = row.hash
        next = row.sequence + 1
      }
      if (page.length < PAGE_ROWS) return
    }
  }

  /** Compares table and head file as the MVM starts, and marks a break. */
  resume(): void {
    const reason = this.#headProblem()
    if (reason !== undefined) {
      const known = this.#headFile.read()
      const { sequence, hash, signature } = typeof known === "string" ? {} : known
      this.append(BREAK, { reason, knownSequence: sequence, knownHash: hash, knownSignature: signature })
    }
    const last = this.#last.get()
    this.#headFile.create(
      last ? toChained(last) : { sequence: 0, hash: GENESIS, signature: this.#sign(0, GENESIS) },
    )
  }

  #insertAll(
    entries: readonly AuditEntry[],
    nowMs: number,
  ): { heads: AuditHead[]; newest: SignedHead | undefined } {
    let head = this.#committed ?? this.head()
    // Known again once this transaction is in the database, and not if it is undone.
    this.#committed = undefined
    this.#database.afterCommit(() => (this.#committed = head))
    let newest: SignedHead | undefined
    const heads = entries.map(({ kind, subject, alongside }) => {
      if (!KIND.test(kind)) throw new MvmError("config", "audit.kind: not a lower-case word")
      const row = { sequence: head.sequence + 1, timeMs: nowMs, kind, body: canonicalBody(subject) }
      const hash = rowHash(head.hash, row)
      const signature = this.#sign(row.sequence, hash)
      this.#insert.run(row.sequence, row.timeMs, kind, row.body, hash, signature)
      alongside?.()
      head = { sequence: row.sequence, hash }
      newest = { ...head, signature }
      return head
    })
    return { heads, newest }
  }

  #headProblem(): string | undefined {
    const last = this.head()
    const file = this.#headFile.read()
    if (file === "absent") return last.sequence === 0 ? undefined : "the file with the signed head is gone"
    if (file === "damaged") return "the file with the signed head is damaged"
    const message = headMessage(file.sequence, file.hash)
    if (!p256Verify(this.#identity.publicKey, message, file.signature))
      return "the head is not signed by this MVM"
    if (file.sequence > last.sequence) return `rows ${last.sequence + 1} to ${file.sequence} were cut off`
    // The head file may lag by the one commit that a crash came after.
    const row = file.sequence === 0 ? undefined : this.#page.all(file.sequence, 1)[0]
    const hash = row && Number(row.sequence) === file.sequence ? row.hash : GENESIS
    return equalBytes(hash, file.hash) ? undefined : `row ${file.sequence} is not the row that was signed`
  }

  #sign(sequence: number, hash: Uint8Array): Uint8Array {
    return this.#identity.sign(headMessage(sequence, hash))
  }
}

function toChained(row: StoredRow): ChainedRow {
  const { kind, body, hash, signature } = row
  return { sequence: Number(row.sequence), timeMs: Number(row.time_ms), kind, body, hash, signature }
}

function breakReason(body: string): string {
  return String((JSON.parse(body) as { reason?: unknown }).reason)
}
