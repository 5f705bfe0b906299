/** @module cli/guest/send */

import { closeSync } from "node:fs"
import { ChannelEnd } from "../../guest/channel-end.ts"
import { sendAll } from "../../guest/pump.ts"
import { MvmError } from "../../lib/errors.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket } from "../connect.ts"
import { WaitingLine, note } from "../output.ts"
import { openSource } from "./source.ts"
import { nameOf, serviceOf, transfer } from "./transfer.ts"

export const guestSend: CommandSpec = {
  usage: "guest send <target> [file]",
  summary: "send standard input, or a file, to another VM",
  options: [
    { flags: "--service <name>", description: "which service of the target (default: default)" },
    { flags: "--wait [time]", description: "wait for a receiver (without a time: 1h; default: do not wait)" },
    { flags: "--offer", description: "wait until a receiver requests it (recv --request) instead of asking" },
    {
      flags: "--digest <kind>",
      description: "chain, or sha256 to hash the content as well",
      values: ["chain", "sha256"],
    },
    { flags: "--quiet", description: "say nothing on success" },
    { flags: "--json", description: "report the outcome as JSON on stderr" },
    ...AGENT_OPTIONS,
  ],
  examples: [
    "guest send db <dump.sql",
    "guest send db dump.sql --wait 5m",
    "guest send backup --service nightly - <archive.tar",
  ],
  async run(call) {
    const target = nameOf(call.arg(0), "target")
    const path = call.args[1]
    const service = serviceOf(call)
    const digest = call.oneOf("digest", ["chain", "sha256"], "chain")
    const waitMs = call.given("wait") ? call.durationMs("wait", 3_600_000) : 0
    for (const option of ["wait", "digest"]) {
      if (!call.flag("offer") || !call.given(option)) continue
      throw new MvmError("usage", `--${option} does not go with --offer`, {
        hint: "an offer stands until a receiver requests it, and the receiver says how",
      })
    }
    const source = openSource(path)
    try {
      await transfer({
        socket: agentSocket(call),
        quiet: call.flag("quiet"),
        json: call.flag("json"),
        label: `to ${target}`,
        totalBytes: source.totalBytes,
        begin: async (agent) => {
          if (call.flag("offer")) {
            return ChannelEnd.offer(agent, { service, source: target, role: "send" }, () => {
              if (!call.flag("quiet")) note(`offering service ${service} to ${target}`)
            })
          }
          const line =
            waitMs > 0 && !call.flag("quiet")
              ? new WaitingLine(`waiting for a receiver on ${target}, service ${service}`)
              : undefined
          return ChannelEnd.open(agent, { target, service, role: "send", digest, waitMs }).finally(() =>
            line?.end(),
          )
        },
        run: (end, progress) => sendAll(end, source, progress),
      })
    } finally {
      if (source.fd !== 0) closeSync(source.fd)
    }
  },
}
