/**
 * @module mvm/state/audit-chain
 *
 * The audit log as mathematics: how a row is hashed onto the one before it, what the MVM signs, and the check of
 * both. Knows nothing of where rows are kept, so the same code checks the database and an exported file.
 *
 * ```
 * hash(n) = SHA-256( "mvm audit v1", hash(n-1), n, time, kind, canonical JSON )     hash(0) = 32 zero bytes
 * signature(n) = ECDSA P-256 by the MVM over ( "mvm audit head v1", n, hash(n) )
 * ```
 *
 * A signature on one row vouches for every row before it.
 */

import { equalBytes, fromHex, toHex } from "../../lib/bytes.ts"
import { P256_SIGNATURE_BYTES, p256Verify, SHA256_BYTES, sha256 } from "../../lib/crypto.ts"
import { encodeFields } from "../../lib/encoding.ts"
import { MvmError } from "../../lib/errors.ts"

export const GENESIS: Uint8Array = new Uint8Array(SHA256_BYTES)
const MAX_BODY_BYTES = 65_536

export type AuditValue =
  | string
  | number
  | bigint
  | boolean
  | null
  | undefined
  | Uint8Array
  | readonly AuditValue[]
  | { readonly [key: string]: AuditValue }

/** What a row is about. Bytes are written as hex, bigints as decimal text, undefined fields are left out. */
export type AuditSubject = Readonly<Record<string, AuditValue>>

export interface ChainedRow {
  /** 1 for the first row. */
  readonly sequence: number
  readonly timeMs: number
  readonly kind: string
  /** Canonical JSON: keys sorted, no spaces. */
  readonly body: string
  /** 32 bytes. */
  readonly hash: Uint8Array
  /** 64 bytes. */
  readonly signature: Uint8Array
}

export interface ChainProblem {
  readonly sequence: number
  readonly reason: string
}

/** The one text of `subject`. @throws MvmError `config` for what JSON cannot hold; `too_large` past 64 KiB. */
export function canonicalBody(subject: AuditSubject): string {
  const body = canonical(subject)
  if (body.length > MAX_BODY_BYTES) throw new MvmError("too_large", "audit.body: longer than 64 KiB")
  return body
}

export function rowHash(previous: Uint8Array, row: Omit<ChainedRow, "hash" | "signature">): Uint8Array {
  return sha256(encodeFields("mvm audit v1", [previous, row.sequence, row.timeMs, row.kind, row.body]))
}

/** What the MVM signs for the log that ends in row `sequence`. */
export function headMessage(sequence: number, hash: Uint8Array): Uint8Array {
  return encodeFields("mvm audit head v1", [sequence, hash])
}

/** What is wrong with `row` as the successor of row `sequence - 1` with hash `previous`, or undefined. */
export function rowProblem(
  row: ChainedRow,
  sequence: number,
  previous: Uint8Array,
  publicKey: Uint8Array,
): string | undefined {
  if (row.sequence !== sequence) return `row ${sequence} is missing`
  if (!isTime(row.timeMs)) return "its time is no time"
  if (!equalBytes(rowHash(previous, row), row.hash)) return "its hash does not follow from its content"
  if (!p256Verify(publicKey, headMessage(sequence, row.hash), row.signature))
    return "its signature is not the MVM's"
  return undefined
}

/** One line of an export. */
export function exportLine(row: ChainedRow, previous: Uint8Array): string {
  return JSON.stringify({
    sequence: row.sequence,
    timeMs: row.timeMs,
    kind: row.kind,
    body: JSON.parse(row.body) as unknown,
    previous: toHex(previous),
    hash: toHex(row.hash),
    signature: toHex(row.signature),
  })
}

export interface ExportVerification {
  readonly ok: boolean
  readonly rows: number
  /** The last row that was good: compare it with a head kept elsewhere to see that nothing was cut off. */
  readonly head: { readonly sequence: number; readonly hash: Uint8Array } | undefined
  readonly firstBad?: ChainProblem
}

/**
 * Checks an exported log with nothing but the MVM's public key (65 bytes). It may begin at any row; `head` is a
 * row the log is known to have had, and makes an export that ends before it, or tells another story, fail.
 *
 * Trust: the lines may come from anybody.
 */
export function verifyExport(
  lines: Iterable<string>,
  publicKey: Uint8Array,
  head?: { readonly sequence: number; readonly hash: Uint8Array },
): ExportVerification {
  let rows = 0
  let last: { sequence: number; hash: Uint8Array } | undefined
  let headSeen = head === undefined
  for (const line of lines) {
    if (line === "") continue
    const expected: number | undefined = last && last.sequence + 1
    const parsed = parseLine(line)
    if (!parsed) return bad(expected ?? 1, "a line is not a row of an audit log")
    const { row, previous } = parsed
    const sequence = expected ?? row.sequence
    const problem = last && !equalBytes(previous, last.hash) ? "it does not follow the row before" : undefined
    const reason = problem ?? rowProblem(row, sequence, previous, publicKey)
    if (reason) return bad(sequence, reason)
    if (sequence === 1 && !equalBytes(previous, GENESIS)) return bad(1, "the first row follows another")
    last = { sequence, hash: row.hash }
    rows++
    if (head?.sequence === sequence) {
      if (!equalBytes(head.hash, row.hash)) return bad(sequence, "it is not the row that was known")
      headSeen = true
    }
  }
  if (!headSeen) return bad((last?.sequence ?? 0) + 1, `the known row ${head?.sequence} is not in the export`)
  return { ok: true, rows, head: last }

  function bad(sequence: number, reason: string): ExportVerification {
    return { ok: false, rows, head: last, firstBad: { sequence, reason } }
  }
}

const LINE_KEYS = ["body", "hash", "kind", "previous", "sequence", "signature", "timeMs"]

function parseLine(line: string): { row: ChainedRow; previous: Uint8Array } | undefined {
  try {
    const value = JSON.parse(line) as Record<string, unknown>
    if (Object.keys(value).sort().join() !== LINE_KEYS.join()) return undefined
    const { sequence, timeMs, kind, body } = value
    if (!isTime(sequence) || sequence === 0 || !isTime(timeMs) || typeof kind !== "string") return undefined
    const hash = hex(value["hash"], SHA256_BYTES)
    const previous = hex(value["previous"], SHA256_BYTES)
    const signature = hex(value["signature"], P256_SIGNATURE_BYTES)
    if (typeof body !== "object" || body === null || Array.isArray(body)) return undefined
    return {
      row: { sequence, timeMs, kind, body: canonical(body as AuditSubject), hash, signature },
      previous,
    }
  } catch {
    return undefined
  }
}

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
}

function hex(value: unknown, lengthBytes: number): Uint8Array {
  const bytes = fromHex(String(value))
  if (bytes.length !== lengthBytes) throw new RangeError("length")
  return bytes
}

function canonical(value: AuditValue): string {
  if (value === null || typeof value === "boolean") return String(value)
  if (typeof value === "string") return JSON.stringify(value)
  if (typeof value === "bigint") return JSON.stringify(String(value))
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new MvmError("config", "audit.body: a number is not finite")
    // JSON.stringify writes -0 as 0, and JSON.parse gives that back.
    return JSON.stringify(value)
  }
  if (value instanceof Uint8Array) return JSON.stringify(toHex(value))
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item ?? null)).join(",")}]`
  if (typeof value !== "object")
    throw new MvmError("config", `audit.body: a ${typeof value} cannot be written`)
  const fields = Object.entries(value)
    .filter(([, item]) => item !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  return `{${fields.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(",")}}`
}
