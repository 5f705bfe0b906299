/**
 * @module test/platform/qemu-fixture
 *
 * Options for a VM whose files lie in a folder of their own, with a kernel that halts at its first instruction.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { kernelAppend, type QemuOptions } from "../../src/platform/qemu-args.ts"

export interface Fixture {
  folder: string
  options: QemuOptions
  remove(): void
}

export function qemuFixture(): Fixture {
  const folder = mkdtempSync(join(tmpdir(), "mvm-qemu-"))
  const at = (name: string) => join(folder, name)
  writeFileSync(at("kernel"), haltingKernel())
  writeFileSync(at("initrd"), "")
  const options: QemuOptions = {
    name: "alpha",
    uuid: "5e0f6b1c-6a3e-4d0e-9a55-0c4f5a3f1a01",
    kernel: at("kernel"),
    initrd: at("initrd"),
    append: kernelAppend("pc"),
    memoryMiB: 128,
    cpus: 1,
    net: "none",
    firmware: "seabios",
    machine: "pc",
    vtpmControlSocket: at("vtpm"),
    linkSocket: at("link"),
    qmpSocket: at("qmp"),
    consoleSocket: at("console"),
    consoleLog: at("console.log"),
    accel: "tcg",
  }
  return { folder, options, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** @spec Linux x86 boot protocol: boot sector fields at 0x1f1, header magic at 0x202, entry at 0x200. */
function haltingKernel(): Buffer {
  const kernel = Buffer.alloc(64 * 1024)
  kernel[0x1f1] = 4 // setup sectors
  kernel.set([0xeb, 0x66], 0x200) // jmp 0x268
  kernel.write("HdrS", 0x202)
  kernel.writeUInt16LE(0x020c, 0x206)
  kernel[0x211] = 1 // loaded high
  kernel.writeUInt32LE(0x7fffffff, 0x22c) // initrd address limit
  kernel.set([0xfa, 0xf4, 0xeb, 0xfd], 0x268) // cli; hlt; jmp back
  return kernel
}
