/**
 * @module channel/decision
 *
 * DECISION: what the MVM found and decided about one channel. It is encoded once, signed by the MVM and goes to
 * both ends word for word; keys and signatures cover these bytes, so an end that was shown another decision has
 * another transcript and the channel does not open.
 */

import { P256_PUBLIC_BYTES, SHA256_BYTES } from "../lib/crypto.ts"
import { decodeFields, encodeFields, type Field } from "../lib/encoding.ts"
import { isRingBytes } from "../ring/layout.ts"
import { FieldReader } from "./field-reader.ts"

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

const read = new FieldReader("DECISION")

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

export const END_NAMES = [
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
  if (bytes.length > MAX_DECISION_BYTES) throw read.fault("length", `${bytes.length} bytes`)
  const raw = decodeFields(bytes, LABEL, NAMES, { structure: "DECISION", code: "protocol" })
  return {
    channelId: read.fixed(raw.channelId, CHANNEL_ID_BYTES, "channelId"),
    timeMs: read.number(raw.timeMs, "timeMs"),
    asker: endOf(raw, "asker"),
    answerer: endOf(raw, "answerer"),
    role: read.oneOf(raw.role, ROLES, "role"),
    service: read.text(raw.service, MAX_NAME_BYTES, "service"),
    rule: read.text(raw.rule, MAX_RULE_BYTES, "rule"),
    ...way(raw),
    digestMode: read.oneOf(raw.digestMode, DIGEST_MODES, "digestMode"),
    maxBytes: read.number(raw.maxBytes, "maxBytes") || undefined,
    mvmMeasurement: read.fixed(raw.mvmMeasurement, SHA256_BYTES, "mvmMeasurement"),
  }
}

/** How records travel, and the memory that goes with it. */
function way(
  raw: Record<(typeof NAMES)[number], Uint8Array>,
): Pick<Decision, "transport" | "isolation" | "ringBytes"> {
  const transport = read.oneOf(raw.transport, TRANSPORTS, "transport")
  const ringBytes = read.number(raw.ringBytes, "ringBytes")
  if (transport === "memory") {
    if (!isRingBytes(ringBytes)) throw read.fault("ringBytes", `${ringBytes} is no ring size`)
    return { transport, isolation: read.oneOf(raw.isolation, ISOLATIONS, "isolation"), ringBytes }
  }
  read.oneOf(raw.isolation, [NO_MEMORY], "isolation")
  if (ringBytes !== 0) throw read.fault("ringBytes", `${ringBytes} on a relay`)
  return { transport, isolation: undefined, ringBytes }
}

/** Those of {@link END_NAMES}. */
export function endFields(end: DecisionEnd): Field[] {
  const { uuid, name, identityKey, verdict, bootId, kind, program } = end
  return [uuid, name, identityKey, verdict, bootId, kind, program.path, program.digest]
}

/** An end whose fields stand in `raw` as "who.name". @throws MvmError `protocol` naming the field of `structure` */
export function endOf<const Who extends string>(
  raw: Readonly<Record<`${Who}.${(typeof END_NAMES)[number]}`, Uint8Array>>,
  who: Who,
  fields = read,
): DecisionEnd {
  const of = (name: (typeof END_NAMES)[number]): [bytes: Uint8Array, field: string] => {
    const field = `${who}.${name}` as const
    return [raw[field], field]
  }
  const fixed = (name: (typeof END_NAMES)[number], lengthBytes: number): Uint8Array => {
    const [bytes, field] = of(name)
    return fields.fixed(bytes, lengthBytes, field)
  }
  const text = (name: (typeof END_NAMES)[number], maxBytes: number): string => {
    const [bytes, field] = of(name)
    return fields.text(bytes, maxBytes, field)
  }
  return {
    uuid: fixed("uuid", UUID_BYTES),
    name: text("name", MAX_NAME_BYTES),
    identityKey: fixed("identityKey", P256_PUBLIC_BYTES),
    verdict: fields.oneOf(raw[`${who}.verdict`], VERDICTS, `${who}.verdict`),
    bootId: fixed("bootId", BOOT_ID_BYTES),
    kind: fields.oneOf(raw[`${who}.kind`], KINDS, `${who}.kind`),
    program: { path: text("programPath", MAX_PATH_BYTES), digest: fixed("programDigest", SHA256_BYTES) },
  }
}
