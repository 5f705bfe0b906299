/** @module cli/vm/list */

import type { CommandSpec } from "../command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "../connect.ts"
import { print, printJson, printTable } from "../output.ts"

export interface VmView {
  name: string
  uuid: string
  kind: string
  state: string
  link: string
  verdict: string
  mapping: string
  /** Null while no agent is linked */
  transport: "memory" | "relay" | null
  channels: number
  /** waiting to be collected by it */
  deposits: number
  tags: string[]
  /** Whether `vm start --all` starts it */
  autostart: boolean
  [field: string]: unknown
}

export const vmList: CommandSpec = {
  usage: "vm list",
  summary: "list all VMs",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["vm list", "vm list --json"],
  async run(call) {
    const vms = await ask<VmView[]>(call, "vm.list")
    if (call.flag("json")) return printJson(vms)
    printTable(
      ["NAME", "KIND", "STATE", "LINK", "VERDICT", "CHANNELS", "TAGS"],
      vms.map((vm) => [
        vm.name,
        vm.kind,
        vm.state,
        vm.link,
        vm.verdict,
        String(vm.channels),
        vm.tags.join(","),
      ]),
    )
  },
}

export const vmShow: CommandSpec = {
  usage: "vm show <name>",
  summary: "show everything known of one VM",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["vm show web", "vm show web --json"],
  async run(call) {
    const vm = await ask<VmView>(call, "vm.show", { name: call.arg(0) })
    if (call.flag("json")) return printJson(vm)
    for (const [field, value] of Object.entries(vm)) {
      print(`${`${field}:`.padEnd(18)} ${typeof value === "object" ? JSON.stringify(value) : String(value)}`)
    }
  },
}
