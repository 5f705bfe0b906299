/**
 * @module mvm/channels/relay
 *
 * Records that travel by way of the MVM. It passes them on between the two ends of their channel and holds no key: a
 * record that it changed, left out or made up would not open.
 *
 * What waits for an end that reads slowly is bounded for each channel. An honest sender stays within the window; after
 * a link began anew it may repeat as much, so twice the window is held and no more.
 */

import { RELAY_WINDOW_BYTES } from "../../channel/record-queue.ts"
import type { NamedMessage } from "../../wire/link.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import { directionFrom, endOf, otherEnd, type Channel } from "./channel.ts"

const MAX_HELD_BYTES = 2 * RELAY_WINDOW_BYTES

export type RelayedMessage = NamedMessage<"RECORD"> | NamedMessage<"CREDIT"> | NamedMessage<"RESUME">

/** What became of a message: `unknown` when its sender may not speak of the channel. */
export type Relayed = "passed" | "dropped" | "unknown" | "flooded"

/**
 * Passes `message` on to the other end. One that comes when that end is not there is dropped: the link that then
 * begins anew asks for it again.
 *
 * Trust: its sender is `member`; what the record holds is for the other end to judge.
 */
export function relay(context: MvmContext, member: Member, message: RelayedMessage): Relayed {
  const channel = context.channels.get(message.fields.channelId)
  const end = channel && endOf(channel, member.record.uuid)
  if (!channel || !end || channel.transport !== "relay") return "unknown"
  const other = otherEnd(channel, end)
  const peer = context.hub.byUuid(other.uuid)
  if (channel.state !== "open" || end.released || other.released || !peer?.session) return "dropped"
  const { bulk } = peer
  if (message.name === "RECORD") {
    const { fields } = message
    if (bulk.heldBytes(channel.key) + fields.record.length > MAX_HELD_BYTES) return "flooded"
    bulk.record(channel.key, fields)
    context.traffic.relayed(channel, directionFrom(channel, end), fields.record.length)
  } else {
    bulk.mark(channel.key, message.name, message.fields)
  }
  return "passed"
}

/** Nothing of `channel` is passed on any more. */
export function dropRelayed(context: MvmContext, channel: Channel): void {
  if (channel.transport !== "relay") return
  for (const { uuid } of [channel.asker, channel.answerer]) context.hub.byUuid(uuid)?.bulk.drop(channel.key)
}
