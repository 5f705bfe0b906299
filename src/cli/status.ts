/** @module cli/status */

import { formatDuration, formatSize } from "../lib/units.ts"
import type { CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, askWhenUp } from "./connect.ts"
import { counted, print, printJson, printTable } from "./output.ts"
import type { VmView } from "./vm/list.ts"

interface StatusView {
  pid: number
  state: string
  uptimeSeconds: number
  arena: { path: string; sizeBytes: number; freeBytes: number }
  policy: { file: string; state: string; rules: number; reason?: string }
  vms: VmView[]
  channels: number
}

export const statusCommand: CommandSpec = {
  usage: "status",
  summary: "show the daemon, its VMs and its memory",
  options: [
    STATE_OPTION,
    { flags: "--wait [time]", description: "wait until the daemon answers (without a time: 30s)" },
    JSON_OPTION,
  ],
  examples: ["status", "status --wait", "status --json"],
  async run(call) {
    const waitMs = call.given("wait") ? call.durationMs("wait", 30_000) : 0
    const status = await askWhenUp<StatusView>(call, "status", waitMs)
    if (call.flag("json")) return printJson(status)
    const { arena } = status
    print(
      `mvm serve, pid ${status.pid}, up ${formatDuration(status.uptimeSeconds * 1000)}, state ${status.state}`,
    )
    print(
      `arena ${arena.path}: ${formatSize(arena.sizeBytes - arena.freeBytes)} of ${formatSize(arena.sizeBytes)} used`,
    )
    const { policy } = status
    print(
      `policy ${policy.state === "ok" ? `${policy.file}: ${counted(policy.rules, "rule")}` : policy.reason}`,
    )
    print(counted(status.channels, "channel"))
    printTable(
      ["NAME", "STATE", "LINK", "VERDICT", "CHANNELS"],
      status.vms.map((vm) => [vm.name, vm.state, vm.link, vm.verdict, String(vm.channels)]),
    )
  },
}
