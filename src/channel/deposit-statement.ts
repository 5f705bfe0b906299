/**
 * @module channel/deposit-statement
 *
 * What the MVM found of a deposit when it took it: who left it, what that VM ran and how it was judged, for whom it
 * is, and the hash of the records that the MVM made itself. It is signed once and goes to the target word for word,
 * however much later that asks.
 */

import { decodeFields, encodeFields } from "../lib/encoding.ts"
import { P256_SIGNATURE_BYTES, SHA256_BYTES } from "../lib/crypto.ts"
import { type DecisionEnd, END_NAMES, endFields, endOf } from "./decision.ts"
import { FieldReader } from "./field-reader.ts"

const LABEL = "mvm deposit statement v1"
const ID_BYTES = 16
const MAX_RULE_BYTES = 256
const MAX_NAME_BYTES = 64
/** The longest statement any end accepts. */
export const MAX_STATEMENT_BYTES = 8192

export interface DepositStatement {
  /** 16 bytes */
  readonly depositId: Uint8Array
  /** Milliseconds since 1970, by the MVM's clock */
  readonly timeMs: number
  readonly expiresMs: number
  readonly source: DecisionEnd
  /** 16 bytes */
  readonly targetUuid: Uint8Array
  readonly targetName: string
  readonly service: string
  /** The policy rule that allowed it, for people */
  readonly rule: string
  readonly lengthBytes: number
  readonly storedBytes: number
  readonly records: number
  /** 32 bytes */
  readonly hash: Uint8Array
  /** What the source's signature covers beside the above */
  readonly nonce: Uint8Array
  readonly epoch: Uint8Array
  readonly programUid: number
  /** 64 bytes: the source's, over its claim */
  readonly sourceSignature: Uint8Array
  /** 32-byte digest over what the MVM itself ran */
  readonly mvmMeasurement: Uint8Array
}

const NAMES = [
  "depositId",
  "timeMs",
  "expiresMs",
  ...END_NAMES.map((name) => `source.${name}` as const),
  "targetUuid",
  "targetName",
  "service",
  "rule",
  "lengthBytes",
  "storedBytes",
  "records",
  "hash",
  "nonce",
  "epoch",
  "programUid",
  "sourceSignature",
  "mvmMeasurement",
] as const

const read = new FieldReader("STATEMENT")

/** @throws MvmError `protocol` for values {@link parseStatement} would refuse. */
export function encodeStatement(statement: DepositStatement): Uint8Array {
  const bytes = encodeFields(LABEL, [
    statement.depositId,
    statement.timeMs,
    statement.expiresMs,
    ...endFields(statement.source),
    statement.targetUuid,
    statement.targetName,
    statement.service,
    statement.rule,
    statement.lengthBytes,
    statement.storedBytes,
    statement.records,
    statement.hash,
    statement.nonce,
    statement.epoch,
    statement.programUid,
    statement.sourceSignature,
    statement.mvmMeasurement,
  ])
  // The encoder promises no more than the decoder keeps.
  parseStatement(bytes)
  return bytes
}

/**
 * Trust: the bytes came over the link; that the MVM said this is shown by its signature alone, which the caller
 * verifies over these same bytes.
 *
 * @throws MvmError `protocol` naming the field, for anything but exactly one statement.
 */
export function parseStatement(bytes: Uint8Array): DepositStatement {
  if (bytes.length > MAX_STATEMENT_BYTES) throw read.fault("length", `${bytes.length} bytes`)
  const raw = decodeFields(bytes, LABEL, NAMES, { structure: "STATEMENT", code: "protocol" })
  return {
    depositId: read.fixed(raw.depositId, ID_BYTES, "depositId"),
    timeMs: read.number(raw.timeMs, "timeMs"),
    expiresMs: read.number(raw.expiresMs, "expiresMs"),
    source: endOf(raw, "source", read),
    targetUuid: read.fixed(raw.targetUuid, ID_BYTES, "targetUuid"),
    targetName: read.text(raw.targetName, MAX_NAME_BYTES, "targetName"),
    service: read.text(raw.service, MAX_NAME_BYTES, "service"),
    rule: read.text(raw.rule, MAX_RULE_BYTES, "rule"),
    lengthBytes: read.number(raw.lengthBytes, "lengthBytes"),
    storedBytes: read.number(raw.storedBytes, "storedBytes"),
    records: read.number(raw.records, "records"),
    hash: read.fixed(raw.hash, SHA256_BYTES, "hash"),
    nonce: read.fixed(raw.nonce, SHA256_BYTES, "nonce"),
    epoch: read.fixed(raw.epoch, ID_BYTES, "epoch"),
    programUid: read.number(raw.programUid, "programUid"),
    sourceSignature: read.fixed(raw.sourceSignature, P256_SIGNATURE_BYTES, "sourceSignature"),
    mvmMeasurement: read.fixed(raw.mvmMeasurement, SHA256_BYTES, "mvmMeasurement"),
  }
}
