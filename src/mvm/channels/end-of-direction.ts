/**
 * @module mvm/channels/end-of-direction
 *
 * FIN and RECEIPT: checked, committed to the audit log, and only then passed on. Both are idempotent: the same
 * statement again is passed on again and leaves no second row; another statement is refused. A statement whose row
 * could not be written was never made.
 */

import { toHex } from "../../lib/bytes.ts"
import { p256Verify } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { finMessage, receiptMessage, sameContent } from "../../channel/transcript.ts"
import type { NamedMessage } from "../../wire/link.ts"
import { directionFrom, otherEnd, type Channel, type ChannelEnd, type EndOfDirection } from "./channel.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"

export interface EndStatement {
  readonly channel: Channel
  readonly end: ChannelEnd
  readonly member: Member
  readonly message: NamedMessage<"FIN"> | NamedMessage<"RECEIPT">
}

/**
 * Resolves when the statement may be passed on, with whether it is a new one.
 *
 * @throws MvmError `protocol` when this end may not say it, `denied` for more bytes than the rule allows,
 *   `signature` when it is not signed by the end's identity key, `digest_mismatch` when a receipt names other content
 *   than the FIN, `aborted` when the channel ended meanwhile, and as the audit log when the row could not be written.
 */
export async function acceptEnd(context: MvmContext, statement: EndStatement): Promise<boolean> {
  const { channel, end, member, message } = statement
  const { fields } = message
  if (channel.state === "granted" && end === channel.answerer) await channel.accepted
  // It may have ended while the statement was on its way.
  if (channel.state === "closed")
    throw new MvmError(channel.endCode ?? "aborted", channel.endReason ?? "it ended")
  if (channel.state !== "open")
    throw new MvmError("protocol", `${message.name} on a channel that is not open`)
  const direction = channel.directions[fields.direction]
  const speaker = message.name === "FIN" ? end : otherEnd(channel, end)
  if (!direction || fields.direction !== directionFrom(channel, speaker)) {
    throw new MvmError("protocol", `${message.name}.direction: ${fields.direction} is not this end's`)
  }
  if (channel.maxBytes !== undefined && fields.lengthBytes > channel.maxBytes) {
    throw new MvmError("denied", `${message.name}.lengthBytes: ${channel.rule} allows ${channel.maxBytes}`)
  }
  if ((fields.content === undefined) !== (channel.digestMode === "chain")) {
    throw new MvmError("protocol", `${message.name}.content: the decision says ${channel.digestMode}`)
  }
  const stated: EndOfDirection = {
    lengthBytes: fields.lengthBytes,
    records: fields.records,
    digest: fields.digest,
    content: fields.content,
    signature: fields.signature,
  }
  const said = { channelId: channel.id, direction: fields.direction, ...stated }
  const signed = message.name === "FIN" ? finMessage(said) : receiptMessage(said)
  if (!p256Verify(member.record.keys.identity, signed, stated.signature)) {
    throw new MvmError("signature", `${message.name}.signature: not the identity key of ${end.name}`)
  }
  const slot = message.name === "FIN" ? "fin" : "receipt"
  const before = direction[slot]
  if (before) {
    if (!sameContent(before, stated)) {
      throw new MvmError("protocol", `${message.name}: another one was already logged`)
    }
    await before.logged
    return false
  }
  if (message.name === "RECEIPT" && (!direction.fin || !sameContent(direction.fin, stated))) {
    throw new MvmError("digest_mismatch", `RECEIPT of ${end.name} does not match what was sent`)
  }
  const logged = commit(context, statement, stated).catch((error: unknown) => {
    direction[slot] = undefined
    throw error
  })
  direction[slot] = { ...stated, logged }
  await logged
  if (slot === "fin") context.meters.finished(stated.lengthBytes)
  else context.meters.received()
  if (isClosed(channel)) throw new MvmError("aborted", `${message.name}: the channel has ended`)
  return true
}

function commit(context: MvmContext, statement: EndStatement, stated: EndOfDirection): Promise<void> {
  const { channel, end, message } = statement
  const row = {
    channel: channel.key,
    service: channel.service,
    by: end.name,
    peer: otherEnd(channel, end).name,
    direction: message.fields.direction,
    lengthBytes: stated.lengthBytes,
    records: stated.records,
    covers: stated.content ? "records and content" : "records",
    digest: toHex(stated.digest),
    content: stated.content ? toHex(stated.content) : null,
    transcript: toHex(channel.transcript),
    signature: toHex(stated.signature),
  }
  const kind = message.name === "FIN" ? "fin" : "receipt"
  return context.audit.commit(kind, row, () => context.channels.persist(channel))
}

/** Asked again after an await: the state may be another by then. */
function isClosed(channel: Channel): boolean {
  return channel.state !== "open"
}
