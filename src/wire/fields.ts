/**
 * @module wire/fields
 *
 * Fields that mean the same on the link and on the agent's local socket.
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

export const channelId = bytes(16)

/** An X25519 u-coordinate. */
export const share = bytes(32)

/** r || s */
export const signature = bytes(64)

/** The longest sealed record that one frame carries, beside what else it says. */
export const MAX_RELAYED_BYTES = 60 * 1024

/** A sealed record, head and payload; nobody on its way holds the keys. */
export const record = bytesUpTo(MAX_RELAYED_BYTES)

/** Which way data flows from the point of view of the sender of the message. */
export const role = oneOf(["send", "receive", "duplex"])

export const verdict = oneOf(["trusted", "untrusted", "no_reference", "unknown"])

/** What the end digests cover: every record's header and tag, or the content's own SHA-256 as well. */
export const digest = oneOf(["chain", "sha256"])

/** What an end states of a direction that is over. */
export const endOfDirection = {
  direction: u8,
  lengthBytes: u53,
  records: u53,
  digest: bytes(32),
  content: optional(bytes(32)),
}

/** Of a deposit, and of its region of shared memory while it is filled or emptied. */
export const depositId = bytes(16)

/** The longest part of a deposit that one frame carries. */
export const DEPOSIT_PART_BYTES = 48 * 1024

/** The key of a deposit and its pseudo-address, encrypted to the target. */
export const sealedKey = bytesUpTo(256)

/** What a deposit holds, as its depositor states it: content, and the sealed records that stand for it. */
export const depositSize = { lengthBytes: u53, storedBytes: u53, records: u53 }
/** What the measured agent asserts about the process at its local socket. */
export const program = struct({ path: text(1024), digest: bytes(32), uid: u32 })

/** Another VM as one that may reach it sees it, with the services that wait there for it. */
export const peer = struct({
  name: name(64),
  linked: bool,
  verdict,
  services: list(struct({ name: name(64), role }), 32),
})

/** How long the steps of an opening took at the MVM; some overlap. */
export const stages = { policyUs: u53, appraisalUs: u53, answerUs: u53, grantUs: u53 }

export type Peer = Infer<typeof peer>
