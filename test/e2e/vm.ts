/**
 * @module test/e2e/vm
 *
 * One real VM without a manager: swtpm, QEMU with the guest image, its monitor and its console.
 */

import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { chooseAccel } from "../../src/platform/accel.ts"
import { kernelAppend, type QemuOptions } from "../../src/platform/qemu-args.ts"
import { launchQemu, type QemuProcess } from "../../src/platform/qemu.ts"
import type { QmpEvent } from "../../src/platform/monitor.ts"
import { Qmp } from "../../src/platform/qmp.ts"
import { startSwtpm } from "../../src/platform/swtpm.ts"
import { Console } from "./console.ts"

const image = join(import.meta.dir, "../../dist/guest")

export const ARENA_BYTES = 16 << 20

export interface TestVm {
  console: Console
  qmp: Qmp
  qemu: QemuProcess
  events: QmpEvent[]
  arenaPath: string
  uuid: string
  /** From the start of QEMU to the shell's first answer. */
  bootSeconds: number
  /** Ends everything that was started and removes its files. */
  stop(): Promise<void>
}

export async function startVm(change: Partial<QemuOptions> = {}): Promise<TestVm> {
  const folder = mkdtempSync(join(tmpdir(), "mvm-vm-"))
  const at = (name: string) => join(folder, name)
  const arenaPath = join("/dev/shm", folder.split("/").at(-1)!)
  const cleanups: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })]
  const stop = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  }
  try {
    mkdirSync(at("tpm"))
    const arena = openSync(arenaPath, "wx", 0o600)
    cleanups.push(() => rmSync(arenaPath, { force: true }))
    ftruncateSync(arena, ARENA_BYTES)
    closeSync(arena)
    const vtpm = await startSwtpm({
      stateDir: at("tpm"),
      stateKey: crypto.getRandomValues(new Uint8Array(32)),
      controlSocket: at("vtpm"),
      logFile: at("swtpm.log"),
    })
    cleanups.push(() => vtpm.stop())
    const options: QemuOptions = {
      name: "test",
      uuid: crypto.randomUUID(),
      kernel: join(image, "vmlinuz"),
      initrd: join(image, "initramfs.cpio"),
      append: kernelAppend("pc"),
      memoryMiB: 512,
      cpus: 1,
      net: "none",
      firmware: "seabios",
      machine: "pc",
      arena: { path: arenaPath, sizeBytes: ARENA_BYTES },
      vtpmControlSocket: at("vtpm"),
      linkSocket: at("link"),
      qmpSocket: at("qmp"),
      consoleSocket: at("console"),
      consoleLog: at("console.log"),
      accel: chooseAccel(),
      ...change,
    }
    const started = performance.now()
    const qemu = await launchQemu(options, at("qemu.log"))
    cleanups.push(() => qemu.kill())
    const shell = await Console.connect(options.consoleSocket)
    cleanups.push(() => shell.close())
    const qmp = await Qmp.connect(options.qmpSocket)
    cleanups.push(() => qmp.close())
    const events: QmpEvent[] = []
    qmp.onEvent((event) => events.push(event))
    await shell.ready()
    const bootSeconds = (performance.now() - started) / 1000
    return { console: shell, qmp, qemu, events, arenaPath, uuid: options.uuid, bootSeconds, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
