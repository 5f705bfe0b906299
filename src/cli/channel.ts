/** @module cli/channel */

import { formatAge, formatSize } from "../lib/units.ts"
import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { printJson, printTable } from "./output.ts"

export interface ChannelView {
  id: string
  state: string
  asker: string
  answerer: string
  service: string
  rule: string
  transport: string
  /** Null on a relay */
  isolation: string | null
  ageSeconds: number
  /** Hints from the rings, asker to answerer and back. */
  traffic: { bytes: number; bytesPerSecond: number }[] | null
  /** What each direction's sender said it sent, once it has. */
  sent: (number | null)[]
}

export const CHANNEL_HEADINGS = [
  "ID",
  "STATE",
  "FROM",
  "TO",
  "SERVICE",
  "TRANSPORT",
  "AGE",
  "THERE",
  "BACK",
  "RATE",
  "RULE",
]

export const channelList: CommandSpec = {
  usage: "channel list",
  summary: "list open channels, with what went there and back (about, while it runs)",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["channel list", "channel list --json"],
  async run(call) {
    const channels = await ask<ChannelView[]>(call, "channel.list")
    if (call.flag("json")) return printJson(channels)
    printTable(CHANNEL_HEADINGS, channels.map(channelRow))
  },
}

export const channelClose: CommandSpec = {
  usage: "channel close <id>",
  summary: "end a channel; both ends get status 7",
  options: [STATE_OPTION],
  examples: ["channel close 3f9a12c04d55"],
  async run(call) {
    await ask(call, "channel.close", { id: call.arg(0) })
  },
}

/** For {@link CHANNEL_HEADINGS}. */
export function channelRow(channel: ChannelView): string[] {
  const { id, state, asker, answerer, service, transport, isolation, ageSeconds, traffic, rule } = channel
  const rate = traffic?.reduce((sum, { bytesPerSecond }) => sum + bytesPerSecond, 0)
  return [
    id.slice(0, 12),
    state,
    asker,
    answerer,
    service,
    isolation ?? transport,
    formatAge(ageSeconds),
    amount(channel, 0),
    amount(channel, 1),
    rate === undefined ? "-" : `${formatSize(Math.round(rate))}/s`,
    rule,
  ]
}

function amount({ sent, traffic }: ChannelView, direction: 0 | 1): string {
  const exact = sent[direction] ?? null
  if (exact !== null) return formatSize(exact)
  const about = traffic?.[direction]
  return about ? `~${formatSize(about.bytes)}` : "-"
}
