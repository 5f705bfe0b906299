/** @module cli/guest/recv */

import type { AgentClient } from "../../guest/agent-client.ts"
import { ChannelEnd } from "../../guest/channel-end.ts"
import { receiveAll } from "../../guest/pump.ts"
import { Spool } from "../../guest/spool.ts"
import { MvmError } from "../../lib/errors.ts"
import { setPipeSize } from "../../platform/posix.ts"
import type { Call, CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket } from "../connect.ts"
import { note } from "../output.ts"
import { receiveDeposited, type Wanted } from "./recv-deposited.ts"
import { nameOf, serviceOf, transfer } from "./transfer.ts"

const PIPE_BYTES = 1 << 20
const STDOUT = 1

export const guestRecv: CommandSpec = {
  usage: "guest recv [source]",
  summary: "receive what another VM sends, on standard output",
  options: [
    { flags: "--service <name>", description: "as which service (default: default)" },
    { flags: "--once", description: "one transfer, then end (this is the default)" },
    { flags: "--keep", description: "go on with the next transfer; all end up in the same output" },
    { flags: "--request", description: "ask the source for it (it waits with send --offer)" },
    {
      flags: "--wait [time]",
      description: "with --request or --deposited: wait until there is something (without a time: 1h)",
    },
    { flags: "--deposited", description: "take what was left for this machine (deposit), the oldest first" },
    { flags: "--output <file>", description: "with --deposited: write it there, whole or not at all" },
    {
      flags: "--again <deposit>",
      description: "with --deposited: take this one, whatever became of it before",
    },
    {
      flags: "--digest <kind>",
      description: "with --request: chain, or sha256 to hash the content as well",
      values: ["chain", "sha256"],
    },
    {
      flags: "--verify-first",
      description: "write nothing until all of it came and the digest agreed (held in TMPDIR)",
    },
    { flags: "--raw", description: "pass control characters on to a terminal" },
    { flags: "--quiet", description: "say nothing on success" },
    { flags: "--json", description: "report the outcome as JSON on stderr" },
    ...AGENT_OPTIONS,
  ],
  examples: [
    "guest recv >dump.sql",
    "guest recv web --service nightly | tar x",
    "guest recv db --request >out",
    "guest recv --deposited --output dump.sql",
  ],
  async run(call) {
    const source = call.args[0] === undefined ? undefined : nameOf(call.args[0], "source")
    const service = serviceOf(call)
    const digest = call.oneOf("digest", ["chain", "sha256"], "chain")
    const waitMs = call.given("wait") ? call.durationMs("wait", 3_600_000) : 0
    const request = call.flag("request")
    if (request && source === undefined) {
      throw new MvmError("usage", "--request needs a source", { hint: "mvm guest recv SOURCE --request" })
    }
    if (call.flag("deposited")) return deposited(call, { source, service, waitMs })
    for (const option of ["output", "again"]) {
      if (call.given(option)) throw new MvmError("usage", `--${option} goes with --deposited`)
    }
    for (const option of ["wait", "digest"]) {
      if (request || !call.given(option)) continue
      throw new MvmError("usage", `--${option} goes with --request`, {
        hint: "without --request the sender asks, and a receiver waits until one does",
      })
    }
    if (call.flag("keep") && call.flag("once"))
      throw new MvmError("usage", "--keep and --once exclude each other")
    setPipeSize(STDOUT, PIPE_BYTES)
    const begin = async (agent: AgentClient): Promise<ChannelEnd> => {
      if (request && source !== undefined) {
        return ChannelEnd.open(agent, { target: source, service, role: "receive", digest, waitMs })
      }
      return ChannelEnd.offer(agent, { service, source, role: "receive" }, () => {
        if (!call.flag("quiet")) note(`waiting for ${source ?? "anybody"}, service ${service}`)
      })
    }
    do {
      // Before the sender is told that somebody waits.
      const spool = call.flag("verifyFirst") ? Spool.create() : undefined
      try {
        await transfer({
          socket: agentSocket(call),
          quiet: call.flag("quiet"),
          json: call.flag("json"),
          label: `from ${source ?? "anybody"}`,
          totalBytes: undefined,
          begin,
          run: (end, onProgress) => receiveAll(end, STDOUT, { onProgress, spool, isRaw: call.flag("raw") }),
        })
      } finally {
        spool?.close()
      }
    } while (call.flag("keep"))
  },
}

async function deposited(call: Call, wanted: Pick<Wanted, "source" | "service" | "waitMs">): Promise<void> {
  for (const option of ["request", "digest", "verifyFirst"]) {
    if (!call.given(option)) continue
    throw new MvmError(
      "usage",
      `--${option.replace("verifyFirst", "verify-first")} does not go with --deposited`,
    )
  }
  const [again, output] = [call.text("again"), call.text("output")]
  if (call.flag("keep") && (again !== undefined || output !== undefined)) {
    throw new MvmError("usage", "--keep takes several deposits, and --again and --output are about one")
  }
  await receiveDeposited(call, { ...wanted, again, output, keep: call.flag("keep") })
}
