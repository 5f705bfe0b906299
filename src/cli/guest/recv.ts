/** @module cli/guest/recv */

import type { AgentClient } from "../../guest/agent-client.ts"
import { ChannelEnd } from "../../guest/channel-end.ts"
import { receiveAll } from "../../guest/pump.ts"
import { Spool } from "../../guest/spool.ts"
import { MvmError } from "../../lib/errors.ts"
import { setPipeSize } from "../../platform/posix.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket } from "../connect.ts"
import { note } from "../output.ts"
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
    { flags: "--wait [time]", description: "with --request: wait for an offer (without a time: 1h)" },
    {
      flags: "--digest <kind>",
      description: "with --request: chain, or sha256 to hash the content as well",
      values: ["chain", "sha256"],
    },
    {
      flags: "--verify-first",
      description: "write nothing until all of it came and the digest agreed (held in TMPDIR)",
    },
    { flags: "--quiet", description: "say nothing on success" },
    { flags: "--json", description: "report the outcome as JSON on stderr" },
    ...AGENT_OPTIONS,
  ],
  examples: [
    "guest recv >dump.sql",
    "guest recv web --service nightly | tar x",
    "guest recv db --request >out",
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
          run: (end, onProgress) => receiveAll(end, STDOUT, { onProgress, spool }),
        })
      } finally {
        spool?.close()
      }
    } while (call.flag("keep"))
  },
}
