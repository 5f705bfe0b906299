/**
 * @module platform/libvirt/edits
 *
 * A domain gets the MVM's elements, and loses them again: then it has what they replaced. Where that is not known, since
 * a person typed the elements in or an earlier adoption left them there, it has what libvirt itself would choose.
 */

import { removeUnused, type Controller } from "./controllers.ts"
import type { Domain } from "./domain.ts"
import {
  escapeXml,
  LIFECYCLE,
  LIFECYCLE_DEFAULTS,
  needs,
  ourDevices,
  SUSPEND,
  type MvmParts,
} from "./elements.ts"
import { lackingPorts } from "./pci.ts"

const OUR_LIFECYCLE = "destroy"
const OUR_SUSPEND = "no"

/** What was there before, for taking all of it back; a name that is absent is not known. */
export interface Replaced {
  /** Text of the lifecycle elements: `{ on_reboot: "restart" }`; null where there was none. */
  readonly lifecycle: Readonly<Record<string, string | null>>
  /** Attributes of the elements in <pm>; null where there was none. */
  readonly pm: Readonly<Record<string, string | null>>
  /** What came with our elements, as libvirt numbered it. */
  readonly controllers?: readonly Controller[] | undefined
}

/** Makes the domain have all elements. @returns what was there before */
export function applyElements(domain: Domain, parts: MvmParts): Replaced {
  // What is as we need it beside our devices may be what an earlier adoption made of it.
  const isMarked = ourDevices(domain, parts).length > 0
  const known = (ours: string) => (entry: readonly [string, string | null]) => !isMarked || entry[1] !== ours
  const before: Replaced = {
    lifecycle: Object.fromEntries(
      LIFECYCLE.map((name) => [name, lifecycleOf(domain, name)] as const).filter(known(OUR_LIFECYCLE)),
    ),
    pm: Object.fromEntries(
      SUSPEND.map((name) => [name, suspendOf(domain, name)] as const).filter(known(OUR_SUSPEND)),
    ),
  }
  for (const need of needs(parts, domain.arch)) {
    if (need.isMet(domain)) continue
    for (const element of need.replaced(domain)) domain.remove(element)
    domain.append(need.parent, need.xml)
  }
  // Who has no memory gets none plugged either.
  for (let port = parts.arena ? lackingPorts(domain) : 0; port > 0; port--) {
    domain.append("devices", "<controller type='pci' model='pcie-root-port'/>")
  }
  return before
}

/** Takes our elements out again and puts back what they replaced. @returns names of what was taken out or put back */
export function removeElements(domain: Domain, parts: MvmParts, before: Replaced): string[] {
  const ours = ourDevices(domain, parts)
  const changed = ours.map((element) => `<${element.tagName}>`)
  for (const element of ours) domain.remove(element)
  if (removeUnused(domain, before.controllers ?? []) > 0) changed.push("<controller>")
  // A domain that never got our devices has what its owner gave it.
  const isMarked = ours.length > 0
  changed.push(...restoreLifecycle(domain, before, isMarked), ...restoreSuspend(domain, before, isMarked))
  return changed
}

function restoreLifecycle(domain: Domain, before: Replaced, isMarked: boolean): string[] {
  const changed: string[] = []
  for (const name of LIFECYCLE) {
    const is = lifecycleOf(domain, name)
    const was = before.lifecycle[name]
    const isGuess = was === undefined
    if (isGuess && (!isMarked || is !== OUR_LIFECYCLE)) continue
    const to = isGuess ? LIFECYCLE_DEFAULTS[name] : was
    if (to === is) continue
    changed.push(isGuess ? `<${name}> (${to}, libvirt's default)` : `<${name}>`)
    for (const element of domain.elements(name)) domain.remove(element)
    if (to !== null) domain.append("", `<${name}>${escapeXml(to)}</${name}>`)
  }
  return changed
}

function restoreSuspend(domain: Domain, before: Replaced, isMarked: boolean): string[] {
  const changed = new Set<string>()
  for (const name of SUSPEND) {
    const is = suspendOf(domain, name)
    const was = before.pm[name]
    const isGuess = was === undefined
    if (isGuess && (!isMarked || is !== OUR_SUSPEND)) continue
    const to = was ?? null
    if (to === is) continue
    changed.add(isGuess ? "<pm> (none, libvirt's default)" : `<${name}>`)
    for (const element of domain.elements(`pm/${name}`)) domain.remove(element)
    if (to !== null) domain.append("pm", `<${name} enabled='${escapeXml(to)}'/>`)
  }
  const pm = domain.element("pm")
  if (pm && SUSPEND.every((name) => !domain.element(`pm/${name}`))) domain.remove(pm)
  return [...changed]
}

function lifecycleOf(domain: Domain, name: string): string | null {
  return domain.text(name) ?? null
}

function suspendOf(domain: Domain, name: string): string | null {
  return domain.element(`pm/${name}`)?.getAttribute("enabled") ?? null
}
