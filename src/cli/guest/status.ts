/** @module cli/guest/status */

import { AgentClient } from "../../guest/agent-client.ts"
import type { MemoryProbe } from "../../guest/guest-memory.ts"
import { formatSize } from "../../lib/units.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, JSON_OPTION, agentSocket } from "../connect.ts"
import { print, printTable } from "../output.ts"

interface WaitingDeposit {
  readonly id: string
  readonly source: string
  readonly service: string
  readonly bytes: number
  readonly expires: string
}

interface Status {
  readonly mappings: readonly MemoryProbe[]
  /** null: no MVM says */
  readonly deposits: readonly WaitingDeposit[] | null
}

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
      const { mappings, deposits, ...status } = JSON.parse(json) as Status
      for (const [field, value] of Object.entries<unknown>(status)) {
        print(`${`${field}:`.padEnd(16)} ${Array.isArray(value) ? value.join(", ") : String(value)}`)
      }
      if (mappings.length > 0) printMappings(mappings)
      if (deposits && deposits.length > 0) printDeposits(deposits)
    } finally {
      agent.close()
    }
  },
}

/** What waits here: mvm guest recv --deposited takes it. */
function printDeposits(deposits: readonly WaitingDeposit[]): void {
  printTable(
    ["DEPOSIT", "FROM", "SERVICE", "SIZE", "EXPIRES"],
    deposits.map(({ id, source, service, bytes, expires }) => [
      id,
      source,
      service,
      formatSize(bytes),
      expires,
    ]),
  )
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
