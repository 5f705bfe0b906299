/**
 * @module mvm/deposits/deposit-table
 *
 * The deposits that the MVM keeps, a row each, beside the audit log: a change of one is made in the transaction of
 * its audit row, so that both are there or neither. The records are in files (deposit-files).
 *
 * ```
 *   waiting --handed out--> taken --receipt, expiry, the operator--> gone
 *      |                    |  ^                                      ^
 *      |                    └──┘ handed out again                     |
 *      └──────────── expiry, the operator ────────────────────────────┘
 * ```
 */

import { parseStatement, type DepositStatement } from "../../channel/deposit-statement.ts"
import { MvmError } from "../../lib/errors.ts"
import { DAMAGED_HINT, type Query, type StateDatabase } from "../state/database.ts"

const STATES = ["waiting", "taken"] as const
export type DepositState = (typeof STATES)[number]

export interface Deposit {
  /** hex of its id */
  readonly key: string
  /** UUIDs */
  readonly source: string
  readonly target: string
  readonly service: string
  readonly state: DepositState
  /** hex: the collector's memory that it was handed out to last; empty before */
  readonly memory: string
  /** What its records occupy */
  readonly bytes: number
  readonly createdMs: number
  readonly expiresMs: number
  readonly sealedKey: Uint8Array
  readonly statement: Uint8Array
  readonly signature: Uint8Array
}

/** What a member, or all together, has the MVM keep. */
export interface Kept {
  readonly count: number
  readonly bytes: number
}

interface Row {
  key: string
  source: string
  target: string
  service: string
  state: string
  memory: string
  bytes: bigint
  created_ms: bigint
  expires_ms: bigint
  sealed_key: Uint8Array
  statement: Uint8Array
  signature: Uint8Array
}

export class DepositTable {
  readonly #insert: Query<never>
  readonly #get: Query<Row>
  readonly #all: Query<Row>
  readonly #waiting: Query<Row>
  readonly #count: Query<{ count: bigint }>
  readonly #counts: Query<{ target: string; count: bigint }>
  readonly #expired: Query<Row>
  readonly #kept: Query<{ count: bigint; bytes: bigint }>
  readonly #take: Query<never>
  readonly #remove: Query<never>

  constructor(database: StateDatabase) {
    this.#insert = database.prepare(
      "INSERT INTO deposit VALUES (?, ?, ?, ?, 'waiting', '', ?, ?, ?, ?, ?, ?)",
    )
    this.#get = database.prepare("SELECT * FROM deposit WHERE key = ?")
    this.#all = database.prepare("SELECT * FROM deposit ORDER BY created_ms, key")
    const waiting = `FROM deposit WHERE target = ?1 AND expires_ms > ?2
      AND (?3 IS NULL OR service = ?3) AND (?4 IS NULL OR source = ?4)`
    this.#waiting = database.prepare(`SELECT * ${waiting} ORDER BY created_ms, key LIMIT ?5`)
    this.#count = database.prepare(`SELECT count(*) AS count ${waiting}`)
    this.#counts = database.prepare("SELECT target, count(*) AS count FROM deposit GROUP BY target")
    this.#expired = database.prepare("SELECT * FROM deposit WHERE expires_ms <= ?")
    this.#kept = database.prepare(
      "SELECT count(*) AS count, coalesce(sum(bytes), 0) AS bytes FROM deposit WHERE ?1 IS NULL OR source = ?1",
    )
    this.#take = database.prepare("UPDATE deposit SET state = 'taken', memory = ? WHERE key = ?")
    this.#remove = database.prepare("DELETE FROM deposit WHERE key = ?")
  }

  /** A part of the transaction under way; its state is `waiting`. @throws MvmError `no_space`, `state`. */
  insert(deposit: Omit<Deposit, "state" | "memory">): void {
    const { key, source, target, service, bytes, createdMs, expiresMs } = deposit
    const { sealedKey, statement, signature } = deposit
    this.#insert.run(
      key,
      source,
      target,
      service,
      bytes,
      createdMs,
      expiresMs,
      sealedKey,
      statement,
      signature,
    )
  }

  get(key: string): Deposit | undefined {
    const row = this.#get.get(key)
    return row && toDeposit(row)
  }

  all(): Deposit[] {
    return this.#all.all().map(toDeposit)
  }

  /** What waits for `target`, the oldest first, and how many there are. @param limit of those that are returned */
  waitingFor(
    target: string,
    { service, source, nowMs, limit }: { service?: string; source?: string; nowMs: number; limit: number },
  ): { waiting: Deposit[]; count: number } {
    const filter = [target, nowMs, service ?? null, source ?? null] as const
    const count = Number(this.#count.get(...filter)?.count ?? 0n)
    return { waiting: this.#waiting.all(...filter, limit).map(toDeposit), count }
  }

  /** How many wait for each target: by UUID. */
  counts(): Map<string, number> {
    return new Map(this.#counts.all().map(({ target, count }) => [target, Number(count)]))
  }

  expired(nowMs: number): Deposit[] {
    return this.#expired.all(nowMs).map(toDeposit)
  }

  /** @param source a UUID; without one, of all */
  kept(source?: string): Kept {
    const { count, bytes } = this.#kept.get(source ?? null) ?? { count: 0n, bytes: 0n }
    return { count: Number(count), bytes: Number(bytes) }
  }

  /** A part of the transaction under way, as {@link remove}. */
  take(key: string, memory: string): void {
    this.#take.run(memory, key)
  }

  remove(key: string): void {
    this.#remove.run(key)
  }
}

/** What the MVM signed when it took the deposit. */
export function statementOf({ statement }: Deposit): DepositStatement {
  return parseStatement(statement)
}

function toDeposit(row: Row): Deposit {
  const { key, source, target, service, memory, statement, signature } = row
  const state = STATES.find((known) => known === row.state)
  if (state === undefined) {
    throw new MvmError("state", `deposit ${key}: unknown state ${row.state}`, { hint: DAMAGED_HINT })
  }
  return {
    key,
    source,
    target,
    service,
    state,
    memory,
    bytes: Number(row.bytes),
    createdMs: Number(row.created_ms),
    expiresMs: Number(row.expires_ms),
    sealedKey: row.sealed_key,
    statement,
    signature,
  }
}
