/** @module cli/channel */

import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { printJson, printTable } from "./output.ts"

interface ChannelView {
  id: string
  state: string
  asker: string
  answerer: string
  service: string
  rule: string
  openedAt: string
}

export const channelList: CommandSpec = {
  usage: "channel list",
  summary: "list open channels",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["channel list"],
  async run(call) {
    const channels = await ask<ChannelView[]>(call, "channel.list")
    if (call.flag("json")) return printJson(channels)
    printTable(
      ["ID", "STATE", "FROM", "TO", "SERVICE", "RULE", "OPENED"],
      channels.map((c) => [c.id.slice(0, 12), c.state, c.asker, c.answerer, c.service, c.rule, c.openedAt]),
    )
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
