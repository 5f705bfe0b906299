/**
 * @module platform/hotplug
 *
 * Shared memory plugged into a running QEMU, and out again, over its monitor.
 *
 * @spec QEMU QMP Reference: object-add, device_add, device_del, object-del, qom-list
 */

import { MvmError, asMvmError } from "../lib/errors.ts"
import type { Monitor } from "./monitor.ts"

/** Where the monitor lists devices that have ids. */
const PERIPHERAL = "/machine/peripheral"

/** Ports that are looked at; a machine has 256 buses at most. */
const MAX_PORTS = 64

export interface MemoryDevice {
  readonly id: string
  readonly path: string
  /** A power of two */
  readonly sizeBytes: number
  /** Of the machine, by its id */
  readonly bus: string
}

/**
 * Resolves when the device is there, or nobody knows whether it is: it is asked back then like one that is.
 *
 * @throws MvmError `qemu`, `timeout`: nothing of it is left then.
 */
export async function plugMemory(
  monitor: Monitor,
  { id, path, sizeBytes, bus }: MemoryDevice,
): Promise<void> {
  try {
    await monitor.execute("object-add", {
      "qom-type": "memory-backend-file",
      id: backendOf(id),
      "mem-path": path,
      size: sizeBytes,
      share: true,
    })
  } catch (error) {
    if (!isRefusal(error)) await dropMemory(monitor, id).catch(() => undefined)
    throw error
  }
  try {
    await monitor.execute("device_add", { driver: "ivshmem-plain", id, memdev: backendOf(id), bus })
  } catch (error) {
    // An answer that did not come in time may still have been a yes.
    if (!isRefusal(error)) return
    await dropMemory(monitor, id).catch(() => undefined)
    throw error
  }
}

/** Whether it is QEMU's own answer: `command: Class: words`. */
function isRefusal(error: unknown): boolean {
  return /^[\w-]+: [A-Z]\w*: /.test(asMvmError(error).message)
}

/**
 * Asks the guest to let go; `DEVICE_DELETED` tells that it did. @returns whether there is such a device
 *
 * @throws MvmError `qemu`, `timeout`.
 */
export async function askUnplug(monitor: Monitor, id: string): Promise<boolean> {
  try {
    await monitor.execute("device_del", { id })
    return true
  } catch (error) {
    const { message } = asMvmError(error)
    if (message.startsWith("device_del: DeviceNotFound:")) return false
    // The last request is still with the guest.
    if (message.includes("already in the process of unplug")) return true
    throw error
  }
}

/** QEMU's own mapping of the memory of a device that is gone. @throws MvmError `qemu`, `timeout`. */
export async function dropMemory(monitor: Monitor, id: string): Promise<void> {
  await monitor.execute("object-del", { id: backendOf(id) })
}

/** Ids of the devices that were plugged into the machine. @throws MvmError `qemu`, `timeout`. */
export async function pluggedDevices(monitor: Monitor): Promise<string[]> {
  return childrenOfType(monitor, PERIPHERAL, "child<ivshmem-plain>")
}

/** What firmware keeps free behind a port that asks for nothing: the least of SeaBIOS and OVMF. */
const USUAL_ROOM_BYTES = 2 ** 20

export interface HotplugPort {
  /** Of the port and of its bus */
  readonly id: string
  /** The greatest memory of a device that firmware leaves room for */
  readonly roomBytes: number
}

/**
 * The machine's PCIe ports that a device can be plugged into now: those that have none, or one for which `isOwn` holds.
 *
 * @throws MvmError `qemu`, `timeout`.
 */
export async function hotplugPorts(
  monitor: Monitor,
  isOwn: (deviceId: string) => boolean,
): Promise<HotplugPort[]> {
  const ports = await childrenOfType(monitor, PERIPHERAL, "child<pcie-root-port>")
  const found: HotplugPort[] = []
  for (const id of ports.slice(0, MAX_PORTS)) {
    const path = `${PERIPHERAL}/${id}`
    if ((await monitor.execute("qom-get", { path, property: "hotplug" })) !== true) continue
    const bus = `${path}/${id}`
    const place = (await listed(monitor, bus)).find(({ name }) => name.startsWith("child["))
    const device = place && (await monitor.execute("qom-get", { path: bus, property: place.name }))
    if (device !== undefined && !isOwn(String(device).split("/").at(-1) ?? "")) continue
    const reserve = await monitor.execute("qom-get", { path, property: "pref64-reserve" })
    // All ones where nothing was said.
    const isSaid = Number.isSafeInteger(reserve) && Number(reserve) > 0
    found.push({ id, roomBytes: isSaid ? Number(reserve) : USUAL_ROOM_BYTES })
  }
  return found
}

async function childrenOfType(monitor: Monitor, path: string, type: string): Promise<string[]> {
  return (await listed(monitor, path)).filter((entry) => entry.type === type).map(({ name }) => name)
}

async function listed(monitor: Monitor, path: string): Promise<{ name: string; type: string }[]> {
  const found = await monitor.execute("qom-list", { path })
  if (!Array.isArray(found)) throw new MvmError("qemu", "qom-list: not a list")
  return found.map((entry: { name?: unknown; type?: unknown }) => {
    return { name: String(entry.name), type: String(entry.type) }
  })
}

function backendOf(id: string): string {
  return `${id}-memory`
}
