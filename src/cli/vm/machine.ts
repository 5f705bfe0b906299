/**
 * @module cli/vm/machine
 *
 * What a VM needs whose QEMU the MVM does not start: for those who edit XML or type command lines themselves.
 */

import { shellWord } from "../../lib/shell.ts"
import type { CommandSpec } from "../command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "../connect.ts"
import { print, printJson } from "../output.ts"

/** XML text and the element it belongs in: "" is the domain itself. */
export interface Element {
  parent: string
  xml: string
}

export const vmLibvirtXml: CommandSpec = {
  usage: "vm libvirt-xml <name>",
  summary: "print the elements that the libvirt domain of a VM needs",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["vm libvirt-xml db"],
  async run(call) {
    const elements = await ask<Element[]>(call, "vm.elements", { name: call.arg(0) })
    if (call.flag("json")) return printJson(elements)
    printElements(elements)
  },
}

export const vmQemuArgs: CommandSpec = {
  usage: "vm qemu-args <name>",
  summary: "print the arguments that a QEMU started by hand needs",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["vm qemu-args lab", "vm qemu-args lab --json"],
  async run(call) {
    const args = await ask<string[]>(call, "vm.qemuArgs", { name: call.arg(0) })
    if (call.flag("json")) return printJson(args)
    print(args.map(shellWord).join(" "))
  },
}

/** As they stand in a domain's XML. */
export function printElements(elements: readonly Element[]): void {
  for (const { xml } of elements.filter(({ parent }) => parent === "")) print(xml)
  print("<devices>")
  for (const { xml } of elements.filter(({ parent }) => parent === "devices")) print(`  ${xml}`)
  print("</devices>")
}
