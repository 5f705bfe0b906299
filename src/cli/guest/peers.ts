/** @module cli/guest/peers */

import { listPeers } from "../../guest/peers.ts"
import type { Peer } from "../../wire/fields.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, JSON_OPTION, agentSocket } from "../connect.ts"
import { printJson, printTable } from "../output.ts"

/** What waits there, from the asker's point of view. */
const DOES: Readonly<Record<Peer["services"][number]["role"], string>> = {
  receive: "receives",
  send: "offers",
  duplex: "serves",
}

export const guestPeers: CommandSpec = {
  usage: "guest peers",
  summary: "list whom this VM may reach, whether they are trusted now, and what waits there",
  options: [...AGENT_OPTIONS, JSON_OPTION],
  examples: ["guest peers", "guest peers --json"],
  async run(call) {
    const peers = await listPeers(agentSocket(call))
    if (call.flag("json")) return printJson(peers)
    printTable(
      ["NAME", "LINK", "VERDICT", "SERVICES"],
      peers.map(({ name, linked, verdict, services }) => [
        name,
        linked ? "up" : "down",
        verdict,
        services.map((service) => `${service.name} (${DOES[service.role]})`).join(", "),
      ]),
    )
  },
}
