/** @module mvm/control/channels */

import { MvmError } from "../../lib/errors.ts"
import type { Handler } from "../../platform/json-rpc.ts"
import type { Channel } from "../channels/channel.ts"
import { text } from "./params.ts"
import type { Mvm } from "../context.ts"

export function channelHandlers(mvm: Mvm): Record<string, Handler> {
  const { context } = mvm
  return {
    "channel.list": () => context.channels.all().map((channel) => view(mvm, channel)),
    "channel.close": async (params) => {
      const wanted = text(params, "id")
      const matches = context.channels.all().filter((channel) => channel.key.startsWith(wanted))
      const [channel] = matches
      if (!channel || matches.length > 1) {
        throw new MvmError(
          "not_found",
          `${matches.length === 0 ? "no" : "more than one"} channel ${wanted}`,
          {
            hint: "mvm channel list shows them",
          },
        )
      }
      mvm.endChannel(channel, "revoked", "closed by the operator")
      await context.audit.commit("revoke", { channel: channel.key, reason: "closed by the operator" })
    },
  }
}

/** What an end said it sent is exact; what the rings' cursors say is a hint. */
function view({ context }: Mvm, channel: Channel): Record<string, unknown> {
  return {
    id: channel.key,
    state: channel.state,
    asker: channel.asker.name,
    answerer: channel.answerer.name,
    service: channel.service,
    rule: channel.rule,
    transport: channel.transport,
    program: channel.asker.program,
    isolation: channel.memory?.isolation ?? null,
    ringBytes: channel.memory?.ringBytes ?? 0,
    openedAt: new Date(channel.openedMs).toISOString(),
    ageSeconds: Math.max(0, Math.round((Date.now() - channel.openedMs) / 1000)),
    traffic: context.traffic.of(channel) ?? null,
    sent: channel.directions.map((direction) => direction.fin?.lengthBytes ?? null),
    finished: channel.directions.map((direction) => direction.receipt?.lengthBytes ?? null),
  }
}
