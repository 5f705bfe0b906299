/** @module cli/guest/deposit */

import { closeSync } from "node:fs"
import { AgentClient } from "../../guest/agent-client.ts"
import { DepositClient } from "../../guest/deposits/deposit-client.ts"
import { depositAll } from "../../guest/deposits/deposit-content.ts"
import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { formatDuration, formatSize } from "../../lib/units.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket } from "../connect.ts"
import { ProgressLine, note } from "../output.ts"
import { openSource } from "./source.ts"
import { nameOf, serviceOf } from "./transfer.ts"

export const guestDeposit: CommandSpec = {
  usage: "guest deposit <target> [file]",
  summary: "leave standard input, or a file, for a VM that need not be there",
  options: [
    { flags: "--service <name>", description: "for which service of the target (default: default)" },
    {
      flags: "--expires <time>",
      description: "how long it is kept at most (default: as long as the MVM keeps any)",
    },
    { flags: "--quiet", description: "say nothing on success" },
    { flags: "--json", description: "report the outcome as JSON on stderr" },
    ...AGENT_OPTIONS,
  ],
  examples: ["guest deposit db <dump.sql", "guest deposit backup --service nightly --expires 2d archive.tar"],
  async run(call) {
    const target = nameOf(call.arg(0), "target")
    const service = serviceOf(call)
    const lifetimeSeconds = Math.ceil(call.durationMs("expires", 0) / 1000)
    // In the request 0 is: as long as the MVM keeps any.
    if (call.given("expires") && lifetimeSeconds === 0) {
      throw new MvmError("usage", "--expires: a deposit is kept for some time", {
        hint: "without it, a deposit is kept as long as the MVM keeps any",
      })
    }
    const quiet = call.flag("quiet")
    const source = openSource(call.args[1])
    const agent = await AgentClient.connect(agentSocket(call))
    const line = new ProgressLine(`for ${target}`, source.totalBytes, quiet)
    const startedMs = performance.now()
    try {
      const asked = { target, service, lifetimeSeconds }
      const { depositId, lengthBytes } = await depositAll(
        new DepositClient(agent),
        asked,
        source.fd,
        (bytes) => line.update(bytes),
      )
      line.end()
      const milliseconds = Math.round(performance.now() - startedMs)
      const deposit = toHex(depositId)
      if (call.flag("json")) {
        process.stderr.write(
          `${JSON.stringify({ deposit, target, service, bytes: lengthBytes, milliseconds })}\n`,
        )
      } else if (!quiet) {
        note(
          `${formatSize(lengthBytes)} left for ${target} in ${formatDuration(milliseconds)}, deposit ${deposit}`,
        )
      }
    } finally {
      line.end()
      agent.close()
      if (source.fd !== 0) closeSync(source.fd)
    }
  },
}
