import { afterAll, beforeAll, expect, test } from "bun:test"
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { MvmError } from "../../src/lib/errors.ts"
import { hotplugPorts, plugMemory, pluggedDevices } from "../../src/platform/hotplug.ts"
import type { Monitor } from "../../src/platform/monitor.ts"
import { memberPortArgs } from "../../src/platform/qemu-args.ts"
import { Qmp } from "../../src/platform/qmp.ts"

const PARTS = {
  arena: { path: "/dev/shm/a", sizeBytes: 1 << 20 },
  vtpmControlSocket: "/v",
  linkSocket: "/l",
  qmpSocket: "/q",
}

/** A machine as libvirt makes it: ports with ids of its own, one of them taken, one closed. */
const PORTS = [
  ...["-device", "pcie-root-port,id=pci.1,chassis=1,port=16,bus=pcie.0"],
  ...["-device", "pcie-root-port,id=pci.2,chassis=2,port=17,bus=pcie.0"],
  ...["-device", "pcie-root-port,id=pci.3,chassis=3,port=18,bus=pcie.0,hotplug=off"],
  ...["-device", "virtio-serial-pci,id=serial0,bus=pci.1"],
]

/** Paused, so that its firmware has done nothing yet. */
async function start(name: string, ports: readonly string[]): Promise<{ qemu: Bun.Subprocess; qmp: Qmp }> {
  const socket = join(folder, name)
  const args = ["-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-S"]
  const monitor = ["-qmp", `unix:${socket},server=on,wait=off`]
  const qemu = Bun.spawn(["qemu-system-x86_64", ...args, ...monitor, ...ports], {
    stdio: ["ignore", "ignore", "inherit"],
  })
  for (let look = 0; ; look++) {
    try {
      return { qemu, qmp: await Qmp.connect(socket) }
    } catch (error) {
      if (look === 100) throw error
      await Bun.sleep(100)
    }
  }
}

const folder = mkdtempSync(join(tmpdir(), "mvm-hotplug-"))
let qemu: Bun.Subprocess
let qmp: Qmp

beforeAll(async () => {
  ;({ qemu, qmp } = await start("qmp", [...PORTS, ...memberPortArgs(PARTS, "q35")]))
})
afterAll(async () => {
  qmp?.close()
  qemu?.kill("SIGKILL")
  await qemu?.exited
  rmSync(folder, { recursive: true, force: true })
})

test("memory goes into the ports of a running machine that are empty, whoever made them", async () => {
  const isOwn = (id: string): boolean => id.startsWith("mvm-")
  const room = (id: string, roomBytes: number) => ({ id, roomBytes })
  const own = Array.from({ length: 8 }, (_, port) => room(`hotplug${port}`, 512 * 2 ** 20))
  const found = await hotplugPorts(qmp, isOwn)
  expect(found.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual([...own, room("pci.2", 2 ** 20)])
  const path = join(folder, "memory")
  const fd = openSync(path, "w")
  ftruncateSync(fd, 1 << 20)
  closeSync(fd)
  await plugMemory(qmp, { id: "mvm-1", path, sizeBytes: 1 << 20, bus: "pci.2" })
  expect(await pluggedDevices(qmp)).toEqual(["mvm-1"])
  // The place of one's own device is still one's own, and nobody else's.
  const ids = async (isOne: (id: string) => boolean) => (await hotplugPorts(qmp, isOne)).map(({ id }) => id)
  expect(await ids(isOwn)).toContain("pci.2")
  expect(await ids(() => false)).not.toContain("pci.2")
})

test("memory that QEMU refuses leaves nothing there; where its answer is not heard, the device counts as there", async () => {
  const path = join(folder, "other")
  const fd = openSync(path, "w")
  ftruncateSync(fd, 1 << 20)
  closeSync(fd)
  const device = { id: "mvm-2", path, sizeBytes: 1 << 20, bus: "no-such-bus" }
  const refused: unknown = await plugMemory(qmp, device).catch((one: unknown) => one)
  expect(refused).toMatchObject({ code: "qemu" })
  /** Does as it is told, and is not heard. */
  const deaf = {
    ...{ closed: qmp.closed, onEvent: qmp.onEvent.bind(qmp), close: () => {} },
    execute: async (command: string, args?: Record<string, unknown>) => {
      const answer = await qmp.execute(command, args)
      if (command === "device_add")
        throw new MvmError("timeout", `${command}: no answer from qemu within 1 ms`)
      return answer
    },
  } as Monitor
  // Nothing of the one that was refused is in its way.
  const ports = await hotplugPorts(qmp, () => false)
  await plugMemory(deaf, { ...device, bus: ports[0]!.id })
  expect(await pluggedDevices(qmp)).toContain("mvm-2")
})

test("a machine with one bus for all, or without shared memory, needs no ports", () => {
  expect(memberPortArgs(PARTS, "pc")).toEqual([])
  expect(memberPortArgs({ ...PARTS, arena: undefined }, "q35")).toEqual([])
})

test("a port as libvirt writes it has the room that a domain asks for with words of its own", async () => {
  const port = { driver: "pcie-root-port", port: 8, chassis: 1, id: "pci.1", bus: "pcie.0", addr: "0x1" }
  const words = ["-device", JSON.stringify(port), "-global", "pcie-root-port.pref64-reserve=512M"]
  const own = await start("qmp-global", words)
  try {
    expect(await hotplugPorts(own.qmp, () => false)).toEqual([{ id: "pci.1", roomBytes: 512 * 2 ** 20 }])
  } finally {
    own.qmp.close()
    own.qemu.kill("SIGKILL")
    await own.qemu.exited
  }
})
