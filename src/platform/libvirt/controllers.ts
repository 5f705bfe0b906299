/**
 * @module platform/libvirt/controllers
 *
 * The controllers that a domain got with the MVM's elements: ports for hot-plug, and what libvirt adds by itself for
 * devices that have no place yet. libvirt numbers them when the domain is defined.
 *
 * @spec libvirt formatdomain: controllers, device addresses
 */

import type { Element } from "@xmldom/xmldom"
import { childrenOf, type Domain } from "./domain.ts"

/** As libvirt numbers it: `index` counts for each type. */
export interface Controller {
  readonly type: string
  readonly index: string
}

/** What says in an address which controller it is on, by the controller's type. */
const PLACED_BY: Readonly<Record<string, string>> = { pci: "bus", "virtio-serial": "controller" }

/** Those that `after` has and `before` has not. */
export function addedControllers(before: Domain, after: Domain): Controller[] {
  const known = new Set(elementsOf(before).map((element) => nameOf(controllerOf(element))))
  return elementsOf(after)
    .map(controllerOf)
    .filter((controller) => !known.has(nameOf(controller)))
}

/** Takes those of `added` out that nothing is on any more. @returns how many they were */
export function removeUnused(domain: Domain, added: readonly Controller[]): number {
  const names = new Set(added.map(nameOf))
  for (let removed = 0; ; removed++) {
    // One that goes may have been the last on another.
    const unused = elementsOf(domain).find((element) => {
      return names.has(nameOf(controllerOf(element))) && !isUsed(domain, element)
    })
    if (!unused) return removed
    domain.remove(unused)
  }
}

function isUsed(domain: Domain, element: Element): boolean {
  const { type, index } = controllerOf(element)
  const key = PLACED_BY[type]
  if (key === undefined) return true
  const addresses = [...(domain.element("devices")?.getElementsByTagName("address") ?? [])]
  if (addresses.some((at) => at.getAttribute("type") === type && numberOf(at, key) === Number(index))) {
    return true
  }
  // A slot's other functions are found through its first.
  const own = childrenOf(element, "address")[0]
  if (!own || own.getAttribute("type") !== "pci" || numberOf(own, "function") !== 0) return false
  return addresses.some((at) => at !== own && isSameSlot(at, own))
}

function isSameSlot(a: Element, b: Element): boolean {
  return (
    a.getAttribute("type") === "pci" && ["bus", "slot"].every((key) => numberOf(a, key) === numberOf(b, key))
  )
}

function elementsOf(domain: Domain): Element[] {
  return domain.elements("devices/controller")
}

function controllerOf(element: Element): Controller {
  return { type: element.getAttribute("type") ?? "", index: element.getAttribute("index") ?? "" }
}

function nameOf({ type, index }: Controller): string {
  return `${type} ${index}`
}

function numberOf(element: Element, attribute: string): number {
  return Number(element.getAttribute(attribute))
}
