/** @module cli/vm/set */

import { resolve } from "node:path"
import type { CommandSpec } from "../command.ts"
import { STATE_OPTION, ask } from "../connect.ts"

export const vmSet: CommandSpec = {
  usage: "vm set <name>",
  summary: "change how a VM is judged, or how a stopped one starts",
  options: [
    STATE_OPTION,
    { flags: "--kernel <file>", description: "kernel image" },
    { flags: "--initrd <file>", description: "initramfs" },
    { flags: "--append <text>", description: 'more words for the kernel command line ("" for none)' },
    { flags: "--disk <file>", description: "a disk image, raw or qcow2" },
    { flags: "--memory <size>", description: "main memory" },
    { flags: "--cpus <n>", description: "virtual processors" },
    { flags: "--net <mode>", description: "none, or user for QEMU's own NAT", values: ["none", "user"] },
    { flags: "--firmware <name>", description: "seabios or ovmf", values: ["seabios", "ovmf"] },
    {
      flags: "--memory-device <kind>",
      description: "ivshmem, or none: its records are relayed",
      values: ["ivshmem", "none"],
    },
    { flags: "--remeasure <time>", description: "how often it is measured" },
    {
      flags: "--violations <what>",
      description: "deny or warn: what a file means that was changed while it was measured",
      values: ["deny", "warn"],
    },
    { flags: "--autostart <when>", description: "on: start it with the host; off", values: ["on", "off"] },
    {
      flags: "--tag <name>",
      description: "one more tag for policy rules and shared values; may be repeated",
    },
    { flags: "--untag <name>", description: "one tag less; may be repeated" },
  ],
  examples: [
    "vm set web --remeasure 5s --tag frontend",
    "vm set web --append audit=1",
    "vm set web --kernel vmlinuz-new --initrd initramfs-new.cpio",
  ],
  async run(call) {
    const given = <T>(name: string, value: () => T): T | undefined => (call.given(name) ? value() : undefined)
    const path = (name: string) => given(name, () => resolve(call.text(name) ?? ""))
    await ask(call, "vm.set", {
      name: call.arg(0),
      addTags: call.texts("tag"),
      removeTags: call.texts("untag"),
      config: {
        kernel: path("kernel"),
        initrd: path("initrd"),
        append: call.text("append"),
        disk: path("disk"),
        memoryMiB: given("memory", () => Math.ceil(call.sizeBytes("memory", 0) / 2 ** 20)),
        cpus: given("cpus", () => call.integer("cpus", 1, { min: 1, max: 256 })),
        net: given("net", () => call.oneOf("net", ["none", "user"], "none")),
        firmware: given("firmware", () => call.oneOf("firmware", ["seabios", "ovmf"], "seabios")),
        memoryDevice: given("memoryDevice", () => call.oneOf("memoryDevice", ["ivshmem", "none"], "ivshmem")),
        violations: given("violations", () => call.oneOf("violations", ["deny", "warn"], "deny")),
        autostart: given("autostart", () => call.oneOf("autostart", ["on", "off"], "off") === "on"),
        remeasureSeconds: given("remeasure", () => call.durationMs("remeasure", 0) / 1000),
      },
    })
  },
}
