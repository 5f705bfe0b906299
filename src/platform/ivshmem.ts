/**
 * @module platform/ivshmem
 *
 * The ivshmem-plain device on this machine's PCI bus: BAR 2 is the shared memory.
 *
 * @spec QEMU docs/specs/ivshmem-spec.rst (vendor 1af4, device 1110)
 */

import { readFileSync, readdirSync, statSync } from "node:fs"

const PCI_DEVICES = "/sys/bus/pci/devices"

export interface SharedMemoryDevice {
  /** PCI address, "0000:00:05.0" */
  readonly address: string
  /** File to map */
  readonly path: string
  readonly lengthBytes: number
}

/** All of them, in bus order: the arena is plugged before the VM starts, so it comes first. */
export function findIvshmem(): SharedMemoryDevice[] {
  let addresses: string[]
  try {
    addresses = readdirSync(PCI_DEVICES).sort()
  } catch {
    return []
  }
  const found: SharedMemoryDevice[] = []
  for (const address of addresses) {
    if (attribute(address, "vendor") !== "0x1af4" || attribute(address, "device") !== "0x1110") continue
    const path = `${PCI_DEVICES}/${address}/resource2`
    const lengthBytes = statSync(path, { throwIfNoEntry: false })?.size
    if (lengthBytes) found.push({ address, path, lengthBytes })
  }
  return found
}

function attribute(address: string, name: string): string | undefined {
  try {
    return readFileSync(`${PCI_DEVICES}/${address}/${name}`, "utf8").trim()
  } catch {
    return undefined
  }
}
