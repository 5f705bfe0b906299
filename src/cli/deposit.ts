/** @module cli/deposit */

import { formatSize } from "../lib/units.ts"
import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { printJson, printTable } from "./output.ts"

interface DepositView {
  id: string
  state: string
  source: string
  target: string
  service: string
  rule: string
  bytes: number
  storedBytes: number
  depositedAt: string
  expiresAt: string
}

export const depositList: CommandSpec = {
  usage: "deposit list",
  summary: "list what VMs left for others and nobody has collected",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["deposit list", "deposit list --json"],
  async run(call) {
    const deposits = await ask<DepositView[]>(call, "deposit.list")
    if (call.flag("json")) return printJson(deposits)
    printTable(
      ["ID", "STATE", "FROM", "TO", "SERVICE", "SIZE", "DEPOSITED", "EXPIRES", "RULE"],
      deposits.map(({ id, state, source, target, service, bytes, depositedAt, expiresAt, rule }) => [
        id,
        state,
        source,
        target,
        service,
        formatSize(bytes),
        depositedAt,
        expiresAt,
        rule,
      ]),
    )
  },
}

export const depositRemove: CommandSpec = {
  usage: "deposit rm <deposit>",
  summary: "throw a deposit away, collected or not",
  options: [STATE_OPTION],
  examples: ["deposit rm 3f9a12c04d550e6b7a812c04d5503f9a"],
  async run(call) {
    await ask(call, "deposit.rm", { id: call.arg(0) })
  },
}
