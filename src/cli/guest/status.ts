/** @module cli/guest/status */

import { AgentClient } from "../../guest/agent-client.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, JSON_OPTION, agentSocket } from "../connect.ts"
import { print } from "../output.ts"

export const guestStatus: CommandSpec = {
  usage: "guest status",
  summary: "show what this VM's agent knows of itself",
  options: [...AGENT_OPTIONS, JSON_OPTION],
  examples: ["guest status", "guest status --json"],
  async run(call) {
    const agent = await AgentClient.connect(agentSocket(call))
    try {
      agent.send("STATUS", {})
      const json = await agent.until(() => agent.state)
      if (call.flag("json")) return print(json)
      for (const [field, value] of Object.entries(JSON.parse(json) as Record<string, unknown>)) {
        print(`${`${field}:`.padEnd(16)} ${Array.isArray(value) ? value.join(", ") : String(value)}`)
      }
    } finally {
      agent.close()
    }
  },
}
