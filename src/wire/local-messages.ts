/**
 * @module wire/local-messages
 *
 * The protocol on the agent's local socket, between a command ("client") and its agent ("agent"). One
 * connection is one command; it carries one channel at a time. The kernel says who the client is
 * (SO_PEERCRED), never a message.
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
  u32,
  u53,
  type Infer,
} from "./schema.ts"
import {
  channelId,
  digest,
  endOfDirection,
  peer,
  record,
  role,
  share,
  signature,
  stages,
  DEPOSIT_PART_BYTES,
  depositId,
  depositSize,
  sealedKey,
} from "./fields.ts"
import { defineTable, row } from "./table.ts"

/** Where the memory of a channel is, in the words of the agent's own kernel. */
const region = struct({ path: text(4096), offset: u53, lengthBytes: u53, ringBytes: u53 })

export const LOCAL_MESSAGES = defineTable({
  OPEN: row({
    id: 1,
    from: "client",
    since: 1,
    maxBytes: 512,
    fields: { target: name(64), service: name(64), role, digest, waitMs: u32, share },
  }),
  OFFER: row({
    id: 2,
    from: "client",
    since: 1,
    maxBytes: 512,
    fields: { service: name(64), source: optional(name(64)), role, share },
  }),
  STATUS: row({ id: 3, from: "client", since: 1, maxBytes: 64, fields: {} }),
  STATE: row({ id: 4, from: "agent", since: 1, maxBytes: 32768, fields: { json: text(32000) } }),
  /** As {@link module:wire/messages}; answered by STATE. */
  STANDING: row({ id: 200, from: "client", since: 1, maxBytes: 64, fields: {} }),
  /** Whom may the command reach? */
  PEERS: row({ id: 48, from: "client", since: 1, maxBytes: 128, fields: { after: optional(name(64)) } }),
  PEER_LIST: row({
    id: 49,
    from: "agent",
    since: 1,
    maxBytes: 49152,
    fields: { peers: list(peer, 16), more: bool },
  }),
  /** Before the CHANNEL of a ping. */
  STAGES: row({ id: 50, from: "agent", since: 1, maxBytes: 256, fields: { ...stages, quoteUs: u53 } }),
  OFFERED: row({ id: 5, from: "agent", since: 1, maxBytes: 64, fields: {} }),
  CHANNEL: row({
    id: 6,
    from: "agent",
    since: 1,
    maxBytes: 20480,
    fields: {
      channelId,
      asker: bool,
      decision: bytesUpTo(8192),
      laddress: bytes(16),
      /** Absent: the command does not map memory, its records go through the agent. */
      region: optional(region),
      peerShare: share,
      acceptSignature: signature,
      openSignature: optional(signature),
      leaseMs: u32,
    },
  }),
  KICK: row({ id: 16, from: "both", since: 1, maxBytes: 64, fields: {} }),
  FIN: row({ id: 17, from: "both", since: 1, maxBytes: 512, fields: endOfDirection }),
  RECEIPT: row({ id: 18, from: "both", since: 1, maxBytes: 512, fields: endOfDirection }),
  CLOSE: row({ id: 19, from: "client", since: 1, maxBytes: 64, fields: {} }),
  ABORT: row({
    id: 20,
    from: "both",
    since: 1,
    maxBytes: 2048,
    fields: { code: text(64), message: text(1024) },
  }),
  LEASE: row({ id: 21, from: "agent", since: 1, maxBytes: 64, fields: { leaseMs: u32 } }),
  REVOKE: row({ id: 22, from: "agent", since: 1, maxBytes: 2048, fields: { message: text(1024) } }),
  /** A sealed record, or a part of one when `more` of it follows. */
  RECORD: row({ id: 32, from: "both", since: 1, maxBytes: 62 * 1024, fields: { record, more: bool } }),
  /** Records of the other direction were taken up to here, see channel/record-queue. */
  CREDIT: row({ id: 33, from: "both", since: 1, maxBytes: 64, fields: { taken: u53 } }),
  /** Content for a VM that is not there. */
  DEPOSIT: row({
    id: 56,
    from: "client",
    since: 1,
    maxBytes: 256,
    fields: { target: name(64), service: name(64), lifetimeSeconds: u32 },
  }),
  DEPOSITING: row({
    id: 57,
    from: "agent",
    since: 1,
    maxBytes: 512,
    fields: {
      depositId,
      targetUuid: bytes(16),
      targetKey: bytes(65),
      laddress: bytes(16),
      maxBytes: optional(u53),
    },
  }),
  /** Sealed records. From a client that collects: without any, the wish for more; to it: none at their end. */
  DEPOSIT_DATA: row({
    id: 58,
    from: "both",
    since: 1,
    maxBytes: 50 * 1024,
    fields: { part: bytesUpTo(DEPOSIT_PART_BYTES) },
  }),
  /** Answered by DONE once the MVM keeps it. */
  DEPOSIT_FINISH: row({
    id: 59,
    from: "client",
    since: 1,
    maxBytes: 512,
    fields: { ...depositSize, hash: bytes(32), sealedKey },
  }),
  COLLECT: row({
    id: 60,
    from: "client",
    since: 1,
    maxBytes: 256,
    fields: { service: name(64), source: optional(name(64)), again: optional(depositId) },
  }),
  COLLECTED: row({
    id: 61,
    from: "agent",
    since: 1,
    maxBytes: 10240,
    fields: { statement: bytesUpTo(8192), key: bytes(32), laddress: bytes(16) },
  }),
  DONE: row({ id: 62, from: "agent", since: 1, maxBytes: 64, fields: {} }),
  /** Before the first byte is given out, and after the last. */
  DELIVERED: row({
    id: 63,
    from: "client",
    since: 1,
    maxBytes: 64,
    fields: { step: oneOf(["begun", "delivered"]) },
  }),
  LOGGED: row({ id: 24, from: "agent", since: 1, maxBytes: 64, fields: {} }),
  FAILED: row({
    id: 23,
    from: "agent",
    since: 1,
    maxBytes: 4096,
    fields: { code: text(64), message: text(1024), hint: optional(text(512)) },
  }),
})

export type Region = Infer<typeof region>
export type LocalRole = Infer<typeof role>
