/** @module cli/vm/create */

import type { CommandSpec } from "../command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "../connect.ts"
import { print, printJson, suggest } from "../output.ts"
import { resolve } from "node:path"

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
      description: "seabios or ovmf (default seabios)",
      values: ["seabios", "ovmf"],
    },
    { flags: "--machine <name>", description: "pc or q35 (default pc)", values: ["pc", "q35"] },
    {
      flags: "--memory-device <kind>",
      description: "ivshmem, or none for a machine that shares no memory (default ivshmem)",
      values: ["ivshmem", "none"],
    },
    { flags: "--tag <name>", description: "a tag that policy rules may use; may be repeated" },
    { flags: "--remeasure <time>", description: "how often it is measured (default 30s)" },
    {
      flags: "--certificate",
      description: "endorsement keys with certificates by a local CA, for others to check its vTPM",
    },
    { flags: "--local", description: "no VM: a local endpoint, that is, processes on this host" },
    JSON_OPTION,
  ],
  examples: [
    "vm create web --kernel vmlinuz --initrd initramfs.cpio --memory 1G",
    "vm create backup --local",
  ],
  async run(call) {
    const path = (name: string): string | undefined => {
      const text = call.text(name)
      return text === undefined ? undefined : resolve(text)
    }
    const created = await ask<Created>(call, "vm.create", {
      name: call.arg(0),
      kind: call.flag("local") ? "local" : "qemu",
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
        firmware: call.oneOf("firmware", ["seabios", "ovmf"], "seabios"),
        machine: call.oneOf("machine", ["pc", "q35"], "pc"),
        memoryDevice: call.given("memoryDevice")
          ? call.oneOf("memoryDevice", ["ivshmem", "none"], "ivshmem")
          : undefined,
        remeasureSeconds: call.durationMs("remeasure", 30_000) / 1000,
      },
    })
    if (call.flag("json")) return printJson(created)
    print(`${created.name} ${created.uuid}`)
    suggest(
      call.flag("local")
        ? `start its agent with mvm guest agent --local ${created.name}`
        : `start it with mvm vm start ${created.name} --wait`,
    )
  },
}
