/**
 * @module platform/ivshmem
 *
 * The ivshmem-plain device on this machine's PCI bus: BAR 2 is the shared memory.
 *
 * @spec QEMU docs/specs/ivshmem-spec.rst (vendor 1af4, device 1110)
 */

import { readFileSync, readdirSync } from "node:fs"

const PCI_DEVICES = "/sys/bus/pci/devices"

/** The end of every device's memory belongs to no channel: probes of any VM write over it. */
export const SCRATCH_BYTES = 64 * 1024

/** The line of BAR 2 in a device's `resource`. */
const BAR = 2

export interface SharedMemoryDevice {
  /** PCI address, "0000:00:05.0" */
  readonly address: string
  /** Its folder in sysfs */
  readonly folder: string
  /** Physical address of the memory */
  readonly baseAddress: number
  readonly lengthBytes: number
}

/** All of them, in bus order. */
export function findIvshmem(): SharedMemoryDevice[] {
  let addresses: string[]
  try {
    addresses = readdirSync(PCI_DEVICES).sort()
  } catch {
    return []
  }
  return addresses.flatMap((address) => {
    const folder = `${PCI_DEVICES}/${address}`
    if (attribute(folder, "vendor") !== "0x1af4" || attribute(folder, "device") !== "0x1110") return []
    const bar = attribute(folder, "resource")?.split("\n")[BAR]?.split(" ").map(Number)
    const [first = 0, last = 0] = bar ?? []
    // One that the kernel found no room for has an address of zero.
    return first > 0 && last > first
      ? [{ address, folder, baseAddress: first, lengthBytes: last - first + 1 }]
      : []
  })
}

function attribute(folder: string, name: string): string | undefined {
  try {
    return readFileSync(`${folder}/${name}`, "utf8").trim()
  } catch {
    return undefined
  }
}
