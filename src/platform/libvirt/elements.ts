/**
 * @module platform/libvirt/elements
 *
 * The elements that make a libvirt domain a member: the arena, the vTPM, the link, no suspend, and no reset inside one
 * QEMU process. Ours are known by their aliases; an element of the same kind that is somebody else's is never changed.
 *
 * `on_reboot=destroy` (with the other two, without which libvirt lets QEMU reset itself) makes a guest's reboot the end
 * of QEMU, so that each boot begins with a vTPM that the MVM has just checked.
 *
 * @spec libvirt formatdomain: shmem, tpm, channel, pm, lifecycle events
 */

import type { Element } from "@xmldom/xmldom"
import { MvmError } from "../../lib/errors.ts"
import { LINK_PORT_NAME } from "../qemu-args.ts"
import { attributeOf, childrenOf, type Domain } from "./domain.ts"
import { freeSlots } from "./pci.ts"

export const ALIASES = { arena: "ua-mvm-arena", vtpm: "ua-mvm-tpm", link: "ua-mvm-link" } as const

export interface ArenaPart {
  /** Its file under /dev/shm, without that. */
  readonly name: string
  readonly sizeBytes: number
}

/** Where this member's parts are. Absolute paths. */
export interface MvmParts {
  /** None for a member whose records are relayed. */
  readonly arena: ArenaPart | undefined
  readonly vtpmSocket: string
  readonly linkSocket: string
}

/** What becomes of a domain when its guest or its QEMU ends. */
export const LIFECYCLE = ["on_poweroff", "on_reboot", "on_crash"] as const
/** What <pm> holds. */
export const SUSPEND = ["suspend-to-mem", "suspend-to-disk"] as const
/** As each of {@link LIFECYCLE} is where a domain says nothing. */
export const LIFECYCLE_DEFAULTS = {
  on_poweroff: "destroy",
  on_reboot: "restart",
  on_crash: "destroy",
} as const

/** One element as a domain must have it. */
interface Need {
  /** As people name it: "<tpm>". */
  readonly element: string
  /** Where it belongs: "" is the domain itself. */
  readonly parent: "" | "devices"
  readonly xml: string
  isMet(domain: Domain): boolean
  /** What it takes the place of. */
  replaced(domain: Domain): Element[]
}

/**
 * The elements, as XML text in the order in which libvirt writes them.
 *
 * @param missing names of what a domain lacks: most have two of the lifecycle elements as they must be. All, if none is
 *   known
 */
export function mvmElements(
  parts: MvmParts,
  arch: string,
  missing?: readonly string[],
): { parent: "" | "devices"; xml: string }[] {
  const usual = ["<on_poweroff>", "<on_crash>"]
  return needs(parts, arch)
    .filter(({ element }) => !missing || !usual.includes(element) || missing.includes(element))
    .map(({ parent, xml }) => ({ parent, xml }))
}

/** Names of the elements that the domain lacks, or has otherwise than needed. */
export function missingElements(domain: Domain, parts: MvmParts): string[] {
  return needs(parts, domain.arch)
    .filter((need) => !need.isMet(domain))
    .map(({ element }) => element)
}

/**
 * Elements of the domain that are in the way.
 *
 * @throws MvmError `config` naming the element. @param edit the command that opens the XML
 */
export function refuseConflicts(domain: Domain, parts: MvmParts, edit: string): void {
  const refuse = (what: string, hint: string): never => {
    throw new MvmError("config", `the domain ${domain.name} ${what}`, { hint: `${edit}: ${hint}` })
  }
  const tpm = domain
    .elements("devices/tpm")
    .find((element) => !isOurs(element, ALIASES.vtpm) && !isOurVtpm(element, parts))
  if (tpm) {
    const kind = attributeOf(tpm, "backend", "type") ?? "unknown"
    refuse(
      `already has a <tpm> (backend ${kind})`,
      "take its <tpm> out; what that TPM holds is lost to the guest",
    )
  }
  const channel = links(domain).find(
    (element) => !isOurs(element, ALIASES.link) && !isOurLink(element, parts),
  )
  if (channel) refuse(`already has a <channel> ${LINK_PORT_NAME}`, "take out that <channel>, another MVM's")
  const devices = ["<shmem>", ...(hasSerialBus(domain) ? [] : ["<channel>"])]
  const lacking = missingElements(domain, parts).filter((element) => devices.includes(element))
  if (lacking.length > freeSlots(domain)) {
    refuse(`has no free PCI slot for ${lacking.join(" and ")}`, "take out a device")
  }
  const shmem = domain.elements("devices/shmem").find((element) => !isArena(element, parts))
  if (shmem) {
    const name = shmem.getAttribute("name") ?? ""
    refuse(`already has a <shmem> ${name}`, "take it out: a guest could not tell it from the MVM's")
  }
}

/** The devices of the domain that are the MVM's: by their aliases, or by where they lead. */
export function ourDevices(domain: Domain, parts: MvmParts): Element[] {
  return [
    ...domain.elements("devices/shmem").filter((element) => isArena(element, parts)),
    ...domain
      .elements("devices/tpm")
      .filter((element) => isOurs(element, ALIASES.vtpm) || isOurVtpm(element, parts)),
    ...links(domain).filter((element) => isOurs(element, ALIASES.link) || isOurLink(element, parts)),
  ]
}

/** All elements, in the order in which libvirt writes them. */
export function needs(parts: MvmParts, arch: string): Need[] {
  const tpmModel = arch === "x86_64" || arch === "i686" ? "tpm-crb" : "tpm-tis"
  return [
    ...LIFECYCLE.map(endsAt),
    {
      element: "<pm>",
      parent: "",
      xml: `<pm>${SUSPEND.map((name) => `<${name} enabled='no'/>`).join("")}</pm>`,
      isMet: (domain) =>
        SUSPEND.every((name) => domain.element(`pm/${name}`)?.getAttribute("enabled") === "no"),
      replaced: (domain) => domain.elements("pm"),
    },
    ...(parts.arena ? [sharesMemory(parts.arena)] : []),
    {
      element: "<tpm>",
      parent: "devices",
      xml: [
        `<tpm model='${tpmModel}'><backend type='external'>`,
        `<source type='unix' mode='connect' path='${escapeXml(parts.vtpmSocket)}'/></backend>`,
        `<alias name='${ALIASES.vtpm}'/></tpm>`,
      ].join(""),
      isMet: (domain) =>
        domain
          .elements("devices/tpm")
          .some((tpm) => isOurVtpm(tpm, parts) && tpm.getAttribute("model") === tpmModel),
      replaced: (domain) => domain.elements("devices/tpm"),
    },
    {
      element: "<channel>",
      parent: "devices",
      xml: [
        `<channel type='unix'><source mode='connect' path='${escapeXml(parts.linkSocket)}'>`,
        `<reconnect enabled='yes' timeout='1'/></source>`,
        `<target type='virtio' name='${LINK_PORT_NAME}'/><alias name='${ALIASES.link}'/></channel>`,
      ].join(""),
      isMet: (domain) => links(domain).some((channel) => isOurLink(channel, parts) && reconnects(channel)),
      replaced: links,
    },
  ]
}

function endsAt(name: (typeof LIFECYCLE)[number]): Need {
  const fallback = LIFECYCLE_DEFAULTS[name]
  const allowed = name === "on_crash" ? ["destroy", "coredump-destroy"] : ["destroy"]
  return {
    element: `<${name}>`,
    parent: "",
    xml: `<${name}>destroy</${name}>`,
    isMet: (domain) => allowed.includes(domain.text(name) ?? fallback),
    replaced: (domain) => domain.elements(name),
  }
}

function sharesMemory(arena: ArenaPart): Need {
  const { name, sizeBytes } = arena
  return {
    element: "<shmem>",
    parent: "devices",
    xml: [
      `<shmem name='${escapeXml(name)}'><model type='ivshmem-plain'/>`,
      `<size unit='M'>${sizeBytes / 2 ** 20}</size><alias name='${ALIASES.arena}'/></shmem>`,
    ].join(""),
    isMet: (domain) =>
      domain
        .elements("devices/shmem")
        .some((shmem) => shmem.getAttribute("name") === name && sizeOf(shmem) === sizeBytes),
    replaced: (domain) => domain.elements("devices/shmem").filter((shmem) => isArena(shmem, { arena })),
  }
}

function links(domain: Domain): Element[] {
  return domain
    .elements("devices/channel")
    .filter((channel) => attributeOf(channel, "target", "name") === LINK_PORT_NAME)
}

/** The controller that channels are on; libvirt adds one for the first. */
function hasSerialBus(domain: Domain): boolean {
  return domain
    .elements("devices/controller")
    .some((controller) => controller.getAttribute("type") === "virtio-serial")
}

function isOurs(element: Element, alias: string): boolean {
  return attributeOf(element, "alias", "name") === alias
}

function isArena(shmem: Element, { arena }: Pick<MvmParts, "arena">): boolean {
  return isOurs(shmem, ALIASES.arena) || (arena !== undefined && shmem.getAttribute("name") === arena.name)
}

function isOurVtpm(tpm: Element, { vtpmSocket }: MvmParts): boolean {
  const backend = childrenOf(tpm, "backend")[0]
  return backend?.getAttribute("type") === "external" && attributeOf(backend, "source", "path") === vtpmSocket
}

function isOurLink(channel: Element, { linkSocket }: MvmParts): boolean {
  const source = childrenOf(channel, "source")[0]
  return source?.getAttribute("mode") === "connect" && source.getAttribute("path") === linkSocket
}

/** Without it a restart of the MVM would end the link for good. */
function reconnects(channel: Element): boolean {
  const source = childrenOf(channel, "source")[0]
  return source !== undefined && attributeOf(source, "reconnect", "enabled") === "yes"
}

const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  K: 2 ** 10,
  KiB: 2 ** 10,
  M: 2 ** 20,
  MiB: 2 ** 20,
  G: 2 ** 30,
  GiB: 2 ** 30,
}

function sizeOf(shmem: Element): number {
  const size = childrenOf(shmem, "size")[0]
  return Number(size?.textContent) * (UNITS[size?.getAttribute("unit") ?? "bytes"] ?? Number.NaN)
}

export function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("'", "&apos;")
}
