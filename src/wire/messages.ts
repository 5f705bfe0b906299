/**
 * @module wire/messages
 *
 * The link protocol between a VM's agent ("guest") and the MVM ("mvm"), one row a message. Types, codec,
 * documentation and fuzz generators derive from this table. Only HELLO, WELCOME, POKE and BOOT may travel in frames
 * that are not authenticated; everything else is refused there.
 *
 * A request carries a request id that its sender chose; the answer (or FAILED) repeats it. Messages that are
 * no answer to anything carry id 0.
 */

import {
  bool,
  bytes,
  bytesUpTo,
  list,
  name,
  oneOf,
  optional,
  struct,
  text,
  u8,
  u32,
  u53,
  type Infer,
} from "./schema.ts"
import {
  channelId,
  digest,
  endOfDirection,
  record,
  role,
  share,
  signature,
  DEPOSIT_PART_BYTES,
  depositId,
  depositSize,
  sealedKey,
  program,
} from "./fields.ts"
import { STANDING_ROWS } from "./standing-messages.ts"
import { defineTable, row } from "./table.ts"

/** Version of this table. A peer of another major version is refused at HELLO. */
export const PROTOCOL_VERSION = 1

/** Greatest part of a measurement log in one LOG message, so that the frame stays under 64 KiB. */
export const LOG_CHUNK_BYTES = 48 * 1024

const nonce = bytes(32)

/** TPM2_Quote over the PCRs of the sha256 bank: TPMS_ATTEST, r||s, and the PCR values it digests. */
const quote = struct({ attest: bytesUpTo(512), signature, pcrs: list(bytes(32), 24) })

const signedEnd = { channelId, ...endOfDirection, signature }

export const MESSAGES = defineTable({
  HELLO: row({
    id: 1,
    from: "guest",
    since: 1,
    maxBytes: 512,
    fields: {
      version: u8,
      guestNonce: nonce,
      guestShare: share,
      bootId: bytes(16),
      kind: oneOf(["kernel", "agent"]),
      agent: text(64),
    },
  }),
  WELCOME: row({
    id: 2,
    from: "mvm",
    since: 1,
    maxBytes: 512,
    fields: {
      version: u8,
      vmUuid: bytes(16),
      vmName: name(64),
      epoch: bytes(16),
      mvmShare: share,
      mvmMeasurement: bytes(32),
      signature,
    },
  }),
  POKE: row({ id: 3, from: "mvm", since: 1, maxBytes: 64, fields: {} }),
  READY: row({
    id: 4,
    from: "guest",
    since: 1,
    maxBytes: 40960,
    fields: {
      canMap: bool,
      mapping: text(128),
      channels: list(struct({ channelId, transcript: bytes(32) }), 512),
    },
  }),
  SETTINGS: row({
    id: 5,
    from: "mvm",
    since: 1,
    maxBytes: 16384,
    fields: { leaseMs: u32, memory: text(4096), channels: list(channelId, 512), enc: bytes(65) },
  }),
  FAILED: row({
    id: 6,
    from: "both",
    since: 1,
    maxBytes: 2048,
    fields: { code: text(64), message: text(1024), hint: optional(text(512)) },
  }),
  DONE: row({ id: 7, from: "both", since: 1, maxBytes: 64, fields: {} }),
  BOOT: row({ id: 9, from: "guest", since: 1, maxBytes: 64, fields: {} }),
  PING: row({ id: 8, from: "both", since: 1, maxBytes: 64, fields: {} }),

  OFFER: row({
    id: 16,
    from: "guest",
    since: 1,
    maxBytes: 2048,
    fields: { offerId: u32, service: name(64), source: optional(name(64)), role, program },
  }),
  WITHDRAW: row({ id: 17, from: "guest", since: 1, maxBytes: 64, fields: { offerId: u32 } }),
  ALLOC: row({
    id: 18,
    from: "guest",
    since: 1,
    maxBytes: 2048,
    fields: { target: name(64), service: name(64), role, digest, waitMs: u32, program, share },
  }),
  ALLOCATED: row({
    id: 19,
    from: "mvm",
    since: 1,
    maxBytes: 2048,
    fields: {
      channelId,
      nonce,
      targetUuid: bytes(16),
      targetName: name(64),
      sealed: bytesUpTo(1024),
      logOffset: u53,
    },
  }),
  CANCEL: row({ id: 20, from: "guest", since: 1, maxBytes: 64, fields: { cancels: u32 } }),
  LOG: row({
    id: 21,
    from: "guest",
    since: 1,
    maxBytes: 50 * 1024,
    fields: { offset: u53, entries: bytesUpTo(LOG_CHUNK_BYTES) },
  }),
  REQUEST: row({
    id: 22,
    from: "guest",
    since: 1,
    maxBytes: 4096,
    fields: { channelId, signature, quote },
  }),
  CHALLENGE: row({
    id: 23,
    from: "mvm",
    since: 1,
    maxBytes: 2048,
    fields: {
      channelId,
      offerId: u32,
      nonce,
      sourceUuid: bytes(16),
      sourceName: name(64),
      service: name(64),
      share,
      logOffset: u53,
    },
  }),
  EVIDENCE: row({ id: 24, from: "guest", since: 1, maxBytes: 4096, fields: { channelId, share, quote } }),
  GRANT: row({
    id: 25,
    from: "mvm",
    since: 1,
    maxBytes: 16384,
    fields: {
      channelId,
      decision: bytesUpTo(8192),
      decisionSignature: signature,
      sealed: bytesUpTo(1024),
      leaseMs: u32,
    },
  }),
  ACCEPT: row({ id: 26, from: "guest", since: 1, maxBytes: 256, fields: { channelId, signature } }),
  OPENED: row({
    id: 27,
    from: "mvm",
    since: 1,
    maxBytes: 16384,
    fields: {
      channelId,
      decision: bytesUpTo(8192),
      decisionSignature: signature,
      share,
      acceptSignature: signature,
      leaseMs: u32,
      // A grant, where the memory is not what ALLOCATED said: its own could not be plugged in.
      sealed: optional(bytesUpTo(1024)),
    },
  }),

  KICK: row({ id: 32, from: "both", since: 1, maxBytes: 64, fields: { channelId } }),
  FIN: row({ id: 33, from: "both", since: 1, maxBytes: 512, fields: signedEnd }),
  RECEIPT: row({ id: 34, from: "both", since: 1, maxBytes: 512, fields: signedEnd }),
  CLOSE: row({ id: 35, from: "guest", since: 1, maxBytes: 64, fields: { channelId } }),
  ABORT: row({
    id: 36,
    from: "both",
    since: 1,
    maxBytes: 2048,
    fields: { channelId, code: text(64), message: text(1024) },
  }),
  LEASE: row({
    id: 37,
    from: "mvm",
    since: 1,
    maxBytes: 16384,
    fields: { leaseMs: u32, channels: list(channelId, 512) },
  }),
  REVOKE: row({ id: 38, from: "mvm", since: 1, maxBytes: 2048, fields: { channelId, message: text(1024) } }),
  /** The operator ends a local endpoint: its agent is a part of it. */
  STOP: row({ id: 39, from: "mvm", since: 1, maxBytes: 512, fields: { reason: text(256) } }),

  /** `offset`: what all records of this direction before it count, see channel/record-queue. */
  RECORD: row({
    id: 64,
    from: "both",
    since: 1,
    maxBytes: 62 * 1024,
    fields: { channelId, offset: u53, record },
  }),
  /** Records of the other direction were taken up to here. */
  CREDIT: row({ id: 65, from: "both", since: 1, maxBytes: 128, fields: { channelId, taken: u53 } }),
  /** Begin again at `received`: what came behind it may be lost. Without `answer` the other end says so as well. */
  RESUME: row({
    id: 66,
    from: "both",
    since: 1,
    maxBytes: 128,
    fields: { channelId, received: u53, taken: u53, answer: bool },
  }),
  /** So many bytes of records came over this link since it began. */
  READ: row({ id: 67, from: "guest", since: 1, maxBytes: 64, fields: { bytes: u53 } }),

  MEASURE: row({ id: 48, from: "mvm", since: 1, maxBytes: 128, fields: { nonce, logOffset: u53 } }),
  MEASURED: row({ id: 49, from: "guest", since: 1, maxBytes: 4096, fields: { quote } }),
  EVENTS: row({ id: 50, from: "mvm", since: 1, maxBytes: 64, fields: { offset: u53 } }),
  EVENT_LOG: row({
    id: 51,
    from: "guest",
    since: 1,
    maxBytes: 50 * 1024,
    fields: { totalBytes: u53, offset: u53, events: bytesUpTo(LOG_CHUNK_BYTES) },
  }),

  /** Does a device that was plugged in appear there, and can it be mapped? DONE if so. */
  MEMORY: row({
    id: 72,
    from: "mvm",
    since: 1,
    maxBytes: 64,
    fields: { tag: bytes(16), lengthBytes: u53 },
  }),

  /** Content for a VM that is not there: where it goes, for how long, and whether shared memory is mapped here. */
  DEPOSIT: row({
    id: 88,
    from: "guest",
    since: 1,
    maxBytes: 2048,
    fields: { target: name(64), service: name(64), lifetimeSeconds: u32, memory: bool, program },
  }),
  DEPOSITING: row({
    id: 89,
    from: "mvm",
    since: 1,
    maxBytes: 2048,
    fields: {
      depositId,
      nonce,
      targetUuid: bytes(16),
      targetName: name(64),
      targetKey: bytes(65),
      /** the region, and the pseudo-address */
      sealed: bytesUpTo(1024),
      logOffset: u53,
      maxBytes: optional(u53),
    },
  }),
  /**
   * The next part of the records. From the depositor, answered by DONE: in `part`, or else the first `lengthBytes`
   * of the region. From the collector, answered by DEPOSIT_BYTES: what is wanted.
   */
  DEPOSIT_DATA: row({
    id: 90,
    from: "guest",
    since: 1,
    maxBytes: 50 * 1024,
    fields: { depositId, offset: u53, lengthBytes: u32, part: optional(bytesUpTo(DEPOSIT_PART_BYTES)) },
  }),
  /** The depositor's claim; answered by DONE once the deposit is kept. */
  DEPOSIT_FINISH: row({
    id: 91,
    from: "guest",
    since: 1,
    maxBytes: 4096,
    fields: { depositId, ...depositSize, hash: bytes(32), sealedKey, signature, quote },
  }),
  /** Without a deposit's id, answered by DEPOSITS: what waits for the VM that asks. With it, by COLLECTED. */
  COLLECT: row({
    id: 92,
    from: "guest",
    since: 1,
    maxBytes: 2048,
    fields: {
      depositId: optional(depositId),
      service: optional(name(64)),
      source: optional(name(64)),
      /** names the collector's memory of what it has: another one knows nothing of earlier collections */
      memoryId: bytes(16),
      memory: bool,
      program,
    },
  }),
  COLLECTED: row({
    id: 93,
    from: "mvm",
    since: 1,
    maxBytes: 16384,
    fields: {
      depositId,
      nonce,
      statement: bytesUpTo(8192),
      statementSignature: signature,
      sealedKey,
      /** the region, encrypted to the collector; its length is 0 where the bytes travel over the link */
      sealed: bytesUpTo(1024),
    },
  }),
  DEPOSIT_BYTES: row({
    id: 94,
    from: "mvm",
    since: 1,
    maxBytes: 50 * 1024,
    fields: { lengthBytes: u32, part: optional(bytesUpTo(DEPOSIT_PART_BYTES)) },
  }),
  DEPOSITS: row({
    id: 95,
    from: "mvm",
    since: 1,
    maxBytes: 16384,
    fields: {
      waiting: list(
        struct({
          depositId,
          source: name(64),
          service: name(64),
          lengthBytes: u53,
          expiresMs: u53,
          /** handed out before, to this memory or to another */
          taken: oneOf(["never", "here", "elsewhere"]),
        }),
        64,
      ),
      /** beyond those */
      more: u32,
    },
  }),

  ...STANDING_ROWS,
})

export type Program = Infer<typeof program>
export type Quote = Infer<typeof quote>
export type Role = Infer<typeof role>

/** Messages a link takes in frames that are not authenticated. */
export const UNAUTHENTICATED = new Set(["HELLO", "WELCOME", "POKE", "BOOT"])
