/**
 * @module channel/decision
 *
 * DECISION: what the MVM found and decided about one channel. It is encoded once, signed by the MVM and goes to
 * both ends word for word; keys and signatures cover these bytes, so an end that was shown another decision has
 * another transcript and the channel does not open.
 */

import { fromUtf8 } from "../lib/bytes.ts"
import { P256_PUBLIC_BYTES, SHA256_BYTES } from "../lib/crypto.ts"
import { decodeFields, encodeFields, type Field } from "../lib/encoding.ts"
import { MvmError } from "../lib/errors.ts"
import { isRingBytes } from "../ring/layout.ts"

const LABEL = "mvm decision v1"
const UUID_BYTES = 16
const BOOT_ID_BYTES = 16
const CHANNEL_ID_BYTES = 16
const MAX_NAME_BYTES = 64
const MAX_RULE_BYTES = 256
const MAX_PATH_BYTES = 1024
/** A limit of nothing would allow no transfer, so zero says that there is none. */
const NO_LIMIT = 0
/** In place of an isolation where no memory is shared. */
const NO_MEMORY = ""
/** The longest DECISION any end accepts. */
export const MAX_DECISION_BYTES = 8192

const VERDICTS = ["trusted", "untrusted"] as const
const KINDS = ["kernel", "agent"] as const
const ROLES = ["send", "receive", "duplex"] as const
const TRANSPORTS = ["memory", "relay"] as const
const ISOLATIONS = ["arena", "dedicated"] as const
/** What the digest at the end covers: the encrypted records, or those and the content's own hash. */
const DIGEST_MODES = ["chain", "sha256"] as const

export type Verdict = (typeof VERDICTS)[number]
/** How records travel: through shared memory, or in frames by way of the MVM. */
export type Transport = (typeof TRANSPORTS)[number]
export type Isolation = (typeof ISOLATIONS)[number]
export type DigestMode = (typeof DIGEST_MODES)[number]

/** What the MVM knows of one end. */
export interface DecisionEnd {
  /** 16 bytes; never used for another VM */
  readonly uuid: Uint8Array
  readonly name: string
  /** 65-byte P-256 point, held by the vTPM */
  readonly identityKey: Uint8Array
  readonly verdict: Verdict
  /** 16 bytes that name this boot */
  readonly bootId: Uint8Array
  /** Who wrote the measurement log */
  readonly kind: (typeof KINDS)[number]
  /** The program as its measured agent asserts it; `digest` is 32 bytes */
  readonly program: { readonly path: string; readonly digest: Uint8Array }
}

export interface Decision {
  /** 16 bytes */
  readonly channelId: Uint8Array
  /** Milliseconds since 1970, by the MVM's clock */
  readonly timeMs: number
  readonly asker: DecisionEnd
  readonly answerer: DecisionEnd
  /** Which way data flows, as the asker asked */
  readonly role: (typeof ROLES)[number]
  readonly service: string
  /** The policy rule that allowed it, for people */
  readonly rule: string
  readonly transport: Transport
  /** Who else maps the memory; undefined on a relay, which has none */
  readonly isolation: Isolation | undefined
  /** Size of each of the two rings; 0 on a relay */
  readonly ringBytes: number
  readonly digestMode: DigestMode
  /** Plaintext bytes each direction may carry; undefined: any number */
  readonly maxBytes: number | undefined
  /** 32-byte digest over what the MVM itself runs */
  readonly mvmMeasurement: Uint8Array
}

const END_NAMES = [
  "uuid",
  "name",
  "identityKey",
  "verdict",
  "bootId",
  "kind",
  "programPath",
  "programDigest",
] as const
const NAMES = [
  "channelId",
  "timeMs",
  ...END_NAMES.map((name) => `asker.${name}` as const),
  ...END_NAMES.map((name) => `answerer.${name}` as const),
  "role",
  "service",
  "rule",
  "transport",
  "isolation",
  "ringBytes",
  "digestMode",
  "maxBytes",
  "mvmMeasurement",
] as const

/** @throws MvmError `protocol` for values {@link parseDecision} would refuse. */
export function encodeDecision(decision: Decision): Uint8Array {
  const bytes = encodeFields(LABEL, [
    decision.channelId,
    decision.timeMs,
    ...endFields(decision.asker),
    ...endFields(decision.answerer),
    decision.role,
    decision.service,
    decision.rule,
    decision.transport,
    decision.isolation ?? NO_MEMORY,
    decision.ringBytes,
    decision.digestMode,
    decision.maxBytes ?? NO_LIMIT,
    decision.mvmMeasurement,
  ])
  // The encoder promises no more than the decoder keeps.
  parseDecision(bytes)
  return bytes
}

/**
 * Trust: the bytes came over the link; that the MVM decided this is shown by its signature alone, which the
 * caller verifies over these same bytes.
 *
 * @throws MvmError `protocol` naming the field, for anything but exactly one decision.
 */
export function parseDecision(bytes: Uint8Array): Decision {
  if (bytes.length > MAX_DECISION_BYTES) throw fault("length", `${bytes.length} bytes`)
  const raw = decodeFields(bytes, LABEL, NAMES, { structure: "DECISION", code: "protocol" })
  return {
    channelId: fixed(raw.channelId, CHANNEL_ID_BYTES, "channelId"),
    timeMs: number(raw.timeMs, "timeMs"),
    asker: end(raw, "asker"),
    answerer: end(raw, "answerer"),
    role: oneOf(raw.role, ROLES, "role"),
    service: text(raw.service, MAX_NAME_BYTES, "service"),
    rule: text(raw.rule, MAX_RULE_BYTES, "rule"),
    ...way(raw),
    digestMode: oneOf(raw.digestMode, DIGEST_MODES, "digestMode"),
    maxBytes: number(raw.maxBytes, "maxBytes") || undefined,
    mvmMeasurement: fixed(raw.mvmMeasurement, SHA256_BYTES, "mvmMeasurement"),
  }
}

/** How records travel, and the memory that goes with it. */
function way(
  raw: Record<(typeof NAMES)[number], Uint8Array>,
): Pick<Decision, "transport" | "isolation" | "ringBytes"> {
  const transport = oneOf(raw.transport, TRANSPORTS, "transport")
  const ringBytes = number(raw.ringBytes, "ringBytes")
  if (transport === "memory") {
    if (!isRingBytes(ringBytes)) throw fault("ringBytes", `${ringBytes} is no ring size`)
    return { transport, isolation: oneOf(raw.isolation, ISOLATIONS, "isolation"), ringBytes }
  }
  oneOf(raw.isolation, [NO_MEMORY], "isolation")
  if (ringBytes !== 0) throw fault("ringBytes", `${ringBytes} on a relay`)
  return { transport, isolation: undefined, ringBytes }
}

function endFields(end: DecisionEnd): Field[] {
  const { uuid, name, identityKey, verdict, bootId, kind, program } = end
  return [uuid, name, identityKey, verdict, bootId, kind, program.path, program.digest]
}

function end(raw: Record<(typeof NAMES)[number], Uint8Array>, who: "asker" | "answerer"): DecisionEnd {
  const identityKey = fixed(raw[`${who}.identityKey`], P256_PUBLIC_BYTES, `${who}.identityKey`)
  return {
    uuid: fixed(raw[`${who}.uuid`], UUID_BYTES, `${who}.uuid`),
    name: text(raw[`${who}.name`], MAX_NAME_BYTES, `${who}.name`),
    identityKey,
    verdict: oneOf(raw[`${who}.verdict`], VERDICTS, `${who}.verdict`),
    bootId: fixed(raw[`${who}.bootId`], BOOT_ID_BYTES, `${who}.bootId`),
    kind: oneOf(raw[`${who}.kind`], KINDS, `${who}.kind`),
    program: {
      path: text(raw[`${who}.programPath`], MAX_PATH_BYTES, `${who}.programPath`),
      digest: fixed(raw[`${who}.programDigest`], SHA256_BYTES, `${who}.programDigest`),
    },
  }
}

function fixed(bytes: Uint8Array, lengthBytes: number, field: string): Uint8Array {
  if (bytes.length !== lengthBytes) throw fault(field, `${bytes.length} bytes, not ${lengthBytes}`)
  return bytes.slice()
}

function number(bytes: Uint8Array, field: string): number {
  if (bytes.length !== 8) throw fault(field, `${bytes.length} bytes, not 8`)
  const value = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw fault(field, "too large")
  return Number(value)
}

/** Text a person may be shown: valid UTF-8 without control characters. */
function text(bytes: Uint8Array, maxBytes: number, field: string): string {
  if (bytes.length > maxBytes) throw fault(field, `${bytes.length} bytes, at most ${maxBytes}`)
  let value: string
  try {
    value = fromUtf8(bytes)
  } catch {
    throw fault(field, "not UTF-8")
  }
  if (/\p{Cc}/u.test(value)) throw fault(field, "a control character")
  return value
}

function oneOf<const Value extends string>(
  bytes: Uint8Array,
  values: readonly Value[],
  field: string,
): Value {
  const value = text(bytes, MAX_NAME_BYTES, field)
  const found = values.find((known) => known === value)
  if (found === undefined) throw fault(field, "unknown value")
  return found
}

function fault(field: string, problem: string): MvmError {
  return new MvmError("protocol", `DECISION.${field}: ${problem}`)
}
