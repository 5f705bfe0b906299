/** @module cli/vm/create */

import { MvmError } from "../../lib/errors.ts"
import { APPARMOR_FILE } from "../../platform/libvirt/apparmor.ts"
import { usualFirmware, usualMachine } from "../../platform/qemu-args.ts"
import type { Call, CommandSpec } from "../command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "../connect.ts"
import { note, print, printJson, suggest } from "../output.ts"
import { printElements, type Element } from "./machine.ts"
import { resolve } from "node:path"

const MACHINES = ["pc", "q35", "virt"] as const

interface Adopted extends Created {
  domain: string
  elements: Element[]
  missing: string[]
  edit: string
  apparmor: string[]
  selinux: boolean
}

interface Created {
  name: string
  uuid: string
}

export const vmCreate: CommandSpec = {
  usage: "vm create <name>",
  summary: "make a VM with a vTPM of its own",
  options: [
    STATE_OPTION,
    { flags: "--kernel <file>", description: "kernel image" },
    { flags: "--initrd <file>", description: "initramfs" },
    { flags: "--append <text>", description: "more words for the kernel command line" },
    { flags: "--disk <file>", description: "a disk image, raw or qcow2" },
    { flags: "--memory <size>", description: "main memory (default 512M)" },
    { flags: "--cpus <n>", description: "virtual processors (default 1)" },
    {
      flags: "--net <mode>",
      description: "none, or user for QEMU's own NAT (default none)",
      values: ["none", "user"],
    },
    {
      flags: "--firmware <name>",
      description: "seabios or ovmf (default seabios; virt has ovmf alone)",
      values: ["seabios", "ovmf"],
    },
    {
      flags: "--machine <name>",
      description: "pc or q35; virt for arm64 (default pc, or virt on an arm64 host)",
      values: MACHINES,
    },
    {
      flags: "--memory-device <kind>",
      description: "ivshmem, or none for a machine that shares no memory (default ivshmem)",
      values: ["ivshmem", "none"],
    },
    { flags: "--tag <name>", description: "a tag that policy rules may use; may be repeated" },
    { flags: "--remeasure <time>", description: "how often it is measured (default 30s)" },
    { flags: "--autostart", description: "start it with the host" },
    {
      flags: "--certificate",
      description: "endorsement keys with certificates by a local CA, for others to check its vTPM",
    },
    { flags: "--local", description: "no VM: a local endpoint, that is, processes on this host" },
    { flags: "--external", description: "a VM whose QEMU you start yourself: see mvm vm qemu-args" },
    { flags: "--libvirt <domain>", description: "adopt this libvirt domain" },
    { flags: "--connect <uri>", description: "where libvirt is (default qemu:///system)" },
    { flags: "--apply", description: "with --libvirt: change the domain, where it lacks something" },
    JSON_OPTION,
  ],
  examples: [
    "vm create web --kernel vmlinuz --initrd initramfs.cpio --memory 1G",
    "vm create backup --local",
    "vm create db --libvirt db.example --apply",
    "vm create lab --external --machine q35",
  ],
  async run(call) {
    const machine = call.oneOf("machine", MACHINES, usualMachine())
    const path = (name: string): string | undefined => {
      const text = call.text(name)
      return text === undefined ? undefined : resolve(text)
    }
    const kinds = (["local", "external", "libvirt"] as const).filter((kind) => call.given(kind))
    if (kinds.length > 1)
      throw new MvmError("usage", `${kinds.map((kind) => `--${kind}`).join(" and ")} exclude each other`)
    const request = {
      name: call.arg(0),
      kind: kinds[0] ?? ("qemu" as const),
      tags: call.texts("tag"),
      certificate: call.flag("certificate"),
      config: {
        kernel: path("kernel"),
        initrd: path("initrd"),
        append: call.text("append"),
        disk: path("disk"),
        memoryMiB: Math.ceil(call.sizeBytes("memory", 512 * 2 ** 20) / 2 ** 20),
        cpus: call.integer("cpus", 1, { min: 1, max: 256 }),
        net: call.oneOf("net", ["none", "user"], "none"),
        firmware: call.oneOf("firmware", ["seabios", "ovmf"], usualFirmware(machine)),
        machine,
        memoryDevice: call.given("memoryDevice")
          ? call.oneOf("memoryDevice", ["ivshmem", "none"], "ivshmem")
          : undefined,
        remeasureSeconds: call.durationMs("remeasure", 30_000) / 1000,
        autostart: call.flag("autostart") || undefined,
      },
    }
    const domain = call.text("libvirt")
    if (domain !== undefined) return adopt(call, { ...request, domain })
    const created = await ask<Created>(call, "vm.create", request)
    if (call.flag("json")) return printJson(created)
    print(`${created.name} ${created.uuid}`)
    suggest(NEXT[request.kind](created.name))
  },
}

const NEXT: Record<"local" | "external" | "libvirt" | "qemu", (name: string) => string> = {
  local: (name) => `start its agent with mvm guest agent --local ${name}`,
  external: (name) => `mvm vm qemu-args ${name} prints what its QEMU needs; its vTPM is ready`,
  libvirt: (name) => `start it with mvm vm start ${name} --wait`,
  qemu: (name) => `start it with mvm vm start ${name} --wait`,
}

async function adopt(call: Call, request: { readonly name: string; readonly domain: string }): Promise<void> {
  const adopted = await ask<Adopted>(call, "vm.adopt", {
    ...request,
    uri: call.text("connect") ?? "qemu:///system",
    apply: call.flag("apply"),
  })
  if (call.flag("json")) return printJson(adopted)
  const { name, uuid, domain, missing, edit } = adopted
  for (const line of confinementNotes(adopted)) note(line)
  if (missing.length === 0) {
    print(`${name} ${uuid}`)
    note(`virsh reboot now powers ${domain} off: use mvm vm reboot ${name}, or the guest's own reboot`)
    return suggest(NEXT.libvirt(name))
  }
  printElements(adopted.elements)
  suggest(`${domain} lacks ${missing.join(", ")}: add them with ${edit}, or run this again with --apply`)
}

/** What keeps the domain's QEMU from the MVM's files, and what lets it at them; a line each. */
export function confinementNotes({
  domain,
  apparmor,
  selinux,
}: Pick<Adopted, "domain" | "apparmor" | "selinux">): string[] {
  const notes: string[] = []
  if (apparmor.length > 0) {
    notes.push(`AppArmor confines ${domain}: ${APPARMOR_FILE} must have these lines when it starts`)
    notes.push(...apparmor.map((line) => `  ${line}`))
  }
  if (selinux) {
    const exempt = "<seclabel type='none' model='selinux'/>"
    notes.push(
      `SELinux confines ${domain}, and mvm ships no rules for it: ${exempt} in the domain exempts it`,
    )
  }
  return notes
}
