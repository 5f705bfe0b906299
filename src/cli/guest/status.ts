/** @module cli/guest/status */

import { AgentClient } from "../../guest/agent-client.ts"
import type { MemoryProbe } from "../../guest/guest-memory.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, JSON_OPTION, agentSocket } from "../connect.ts"
import { print, printTable } from "../output.ts"

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
      const { mappings, ...status } = JSON.parse(json) as { mappings: MemoryProbe[] }
      for (const [field, value] of Object.entries<unknown>(status)) {
        print(`${`${field}:`.padEnd(16)} ${Array.isArray(value) ? value.join(", ") : String(value)}`)
      }
      if (mappings.length > 0) printMappings(mappings)
    } finally {
      agent.close()
    }
  },
}

/** Every way to map the shared memory that was tried. */
function printMappings(mappings: readonly MemoryProbe[]): void {
  const rate = (mbS: number | null): string => (mbS === null ? "-" : String(mbS))
  printTable(
    ["DEVICE", "MAPPING", "READ MB/S", "WRITE MB/S", ""],
    mappings.map(({ device, way, readMbS, writeMbS, problem, isChosen }) => {
      return [device, way, rate(readMbS), rate(writeMbS), problem ?? (isChosen ? "used" : "")]
    }),
  )
}
