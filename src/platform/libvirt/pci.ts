/**
 * @module platform/libvirt/pci
 *
 * Places for devices on a domain's PCI buses, as its XML has them. libvirt gives each device an address when it is
 * defined, and adds bridges and ports while there is a place for them.
 *
 * @spec libvirt formatdomain: controllers, device addresses; docs/pci-hotplug.rst
 */

import type { Element } from "@xmldom/xmldom"
import type { Domain } from "./domain.ts"

const SLOTS = 32
/** Of a `pc` machine's root bus: the host bridge and the chipset. */
const CHIPSET_SLOTS = [0, 1]
/** Empty ports that a machine with a port for each device keeps for hot-plug. */
const SPARE_PORTS = 4

/**
 * How many more devices a `pc` machine has places for; Infinity where libvirt makes places as they are needed.
 */
export function freeSlots(domain: Domain): number {
  if (domain.machine !== "pc") return Infinity
  const used = usedSlots(domain)
  const root = SLOTS - new Set([...(used.get(0) ?? []), ...CHIPSET_SLOTS]).size
  // One is enough for a bridge, and a bridge for all of ours.
  if (root > 0) return Infinity
  const bridges = controllers(domain, "pci-bridge")
  return bridges.reduce((sum, index) => sum + SLOTS - new Set([...(used.get(index) ?? []), 0]).size, 0)
}

/** Numbers of ports for one device each that have none: QEMU knows port N as `pci.N`. */
export function emptyPorts(domain: Domain): number[] {
  const used = usedSlots(domain)
  return controllers(domain, "pcie-root-port").filter((index) => !used.has(index))
}

/** How many more ports the domain needs for hot-plug: none where the machine needs no ports. */
export function lackingPorts(domain: Domain): number {
  if (domain.machine !== "q35" && domain.machine !== "virt") return 0
  return Math.max(0, SPARE_PORTS - emptyPorts(domain).length)
}

/** Slots taken, by bus. */
function usedSlots(domain: Domain): Map<number, number[]> {
  const used = new Map<number, number[]>()
  const addresses: Iterable<Element> = domain.element("devices")?.getElementsByTagName("address") ?? []
  for (const address of addresses) {
    if (address.getAttribute("type") !== "pci") continue
    const bus = Number(address.getAttribute("bus"))
    used.set(bus, [...(used.get(bus) ?? []), Number(address.getAttribute("slot"))])
  }
  return used
}

function controllers(domain: Domain, model: string): number[] {
  return domain
    .elements("devices/controller")
    .filter((controller) => controller.getAttribute("model") === model)
    .map((controller) => Number(controller.getAttribute("index")))
}
