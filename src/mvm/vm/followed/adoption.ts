/**
 * @module mvm/vm/followed/adoption
 *
 * A libvirt domain becomes a member, and stops being one. The domain's XML is changed only where that is asked for, by
 * one `define`: libvirt takes all of it or leaves the domain as it was.
 */

import { rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { MvmError, asMvmError } from "../../../lib/errors.ts"
import type { Account } from "../../../platform/acl.ts"
import { apparmorRules, missingRules } from "../../../platform/libvirt/apparmor.ts"
import {
  accountOfLabel,
  isConfined,
  qemuAccount,
  securityModels,
} from "../../../platform/libvirt/capabilities.ts"
import { addedControllers } from "../../../platform/libvirt/controllers.ts"
import { Domain } from "../../../platform/libvirt/domain.ts"
import { applyElements, removeElements } from "../../../platform/libvirt/edits.ts"
import {
  missingElements,
  mvmElements,
  refuseConflicts,
  type MvmParts,
} from "../../../platform/libvirt/elements.ts"
import { domainInfo, requireNoManagedSave, requirePersistent } from "../../../platform/libvirt/info.ts"
import { DEFAULT_URI, Virsh } from "../../../platform/libvirt/virsh.ts"
import type { Arena } from "../../channels/arena.ts"
import type { VmConfig, VmRecord } from "../../state/registry.ts"
import type { CreateOptions } from "../vm-create.ts"
import { writeSettings } from "../vm-settings.ts"
import type { StartParts } from "../vm-start.ts"
import { requireWay } from "./access.ts"
import type { Machines } from "./machines.ts"

const SHUT_OFF = "shut off"
const SHARED_MEMORY = "/dev/shm"

export interface AdoptionParts extends StartParts {
  readonly machines: Machines
  create(options: CreateOptions): Promise<VmRecord>
  remove(record: VmRecord): Promise<void>
}

export interface AdoptionRequest {
  readonly name: string
  /** A name or UUID that libvirt knows. */
  readonly domain: string
  readonly uri: string
  /** Change the domain's XML. */
  readonly apply: boolean
  readonly config: VmConfig
  readonly tags: readonly string[]
}

export interface Adopted {
  readonly record: VmRecord
  readonly domain: string
  /** XML text of each element, and the element it belongs in: "" is the domain itself. */
  readonly elements: readonly { readonly parent: string; readonly xml: string }[]
  /** Names of those that the domain lacks. */
  readonly missing: readonly string[]
  /** How a person changes the domain. */
  readonly edit: string
  /** Lines that {@link APPARMOR_FILE} lacks, where libvirt confines this domain's QEMU. */
  readonly apparmor: readonly string[]
  /** Whether SELinux confines this domain's QEMU: there are no rules of the MVM's for it. */
  readonly selinux: boolean
}

/**
 * Idempotent: a domain that is this VM already is looked at again.
 *
 * @throws MvmError naming the element that is in the way, `vm_state` while the domain runs and would have to change,
 *   `exists`, `not_found`, `unreachable`, `setup`, `usage`, `libvirt` with libvirt's own words. Nothing was changed then.
 */
export async function adoptDomain(parts: AdoptionParts, request: AdoptionRequest): Promise<Adopted> {
  const { registry, machines, stateDir } = parts
  const { name, apply } = request
  const virsh = new Virsh(request.uri)
  requireSystem(virsh)
  const domain = await inactive(virsh, request.domain)
  const existing = alreadyThere(registry.listVms(), name, domain)
  const settings = existing?.config ?? request.config
  const needed = machines.libvirtParts({ uuid: existing?.uuid ?? "", name, config: settings })
  if (needed.arena) requireFindable(parts.arena)
  const edit = virsh.command("edit", domain.name)
  refuseConflicts(domain, needed, edit)
  // Firmware that cannot be vouched for is refused before anything is made.
  const { machine } = launchFilesOf(domain, edit)
  const missing = missingElements(domain, needed)
  const info = await domainInfo(virsh, domain.uuid)
  requirePersistent(virsh, domain.name, info)
  requireNoManagedSave(virsh, domain.name, info)
  if (apply && missing.length > 0) await requireShutOff(virsh, domain, missing)
  const capabilities = await virsh.run(["capabilities"])
  const user = qemuUser(capabilities, domain)
  requireWay(stateDir, user)
  const libvirt = { uri: virsh.uri, domain: domain.uuid, ...existing?.config.libvirt }
  const config: VmConfig = {
    ...request.config,
    machine: machine ?? "pc",
    libvirt,
    qemuUid: user.uid,
  }
  const record = existing
    ? await withUser(parts, existing, user.uid)
    : await parts.create({ name, kind: "libvirt", config, tags: request.tags })
  const elements = mvmElements(needed, domain.arch, missing)
  const confinement = confinementOf(parts, capabilities, domain, needed)
  const adopted = { record, domain: domain.name, elements, edit, ...confinement }
  if (!apply || missing.length === 0) return { ...adopted, missing }
  try {
    await applyTo(parts, { virsh, domain, record, needed })
  } catch (error) {
    if (!existing) await parts.remove(record)
    const { code, message, hint } = asMvmError(error)
    throw new MvmError(code, `${missing.join(", ")} could not be added to ${domain.name}: ${message}`, {
      cause: error,
      hint: hint ?? edit,
    })
  }
  return { ...adopted, missing: [] }
}

/**
 * What the domain of a VM needs, as {@link Adopted.elements}: all of it where the domain cannot be asked, or is not
 * known. An element twice harms nobody; one that is missing has the VM refused.
 */
export async function elementsOf(
  { machines }: AdoptionParts,
  record: VmRecord,
): Promise<Adopted["elements"]> {
  const { libvirt, machine } = record.config
  const needed = machines.libvirtParts(record)
  if (libvirt) {
    try {
      const domain = await inactive(new Virsh(libvirt.uri), libvirt.domain)
      return mvmElements(needed, domain.arch, missingElements(domain, needed))
    } catch (error) {
      if (!(error instanceof MvmError)) throw error
    }
  }
  return mvmElements(needed, machine === "virt" ? "aarch64" : "x86_64")
}

/** Takes the elements out of the domain again. @returns names of what was taken out or put back */
export async function releaseDomain(parts: AdoptionParts, record: VmRecord): Promise<string[]> {
  const { libvirt } = record.config
  if (!libvirt) return []
  const virsh = new Virsh(libvirt.uri)
  const domain = await inactive(virsh, libvirt.domain)
  await requireShutOff(virsh, domain, ["the MVM's elements"])
  // Nothing is known of what stood where a person typed the elements in.
  const before = libvirt.replaced ?? { lifecycle: {}, pm: {} }
  const changed = removeElements(domain, parts.machines.libvirtParts(record), before)
  if (changed.length > 0) await define(parts, virsh, domain)
  return changed
}

async function applyTo(
  parts: AdoptionParts,
  { virsh, domain, record, needed }: { virsh: Virsh; domain: Domain; record: VmRecord; needed: MvmParts },
): Promise<void> {
  const original = String(domain)
  const before = applyElements(domain, needed)
  try {
    await define(parts, virsh, domain)
    const { libvirt } = record.config
    // What the first adoption found is what a release puts back.
    if (!libvirt || libvirt.replaced) return
    const defined = await inactive(virsh, domain.uuid)
    const controllers = addedControllers(Domain.parse(original), defined)
    const change = { libvirt: { ...libvirt, replaced: { ...before, controllers } } }
    await writeSettings(parts, record, { config: { ...record.config, ...change }, change, tags: undefined })
  } catch (error) {
    // An answer that did not come in time may have been a yes, too.
    await define(parts, virsh, Domain.parse(original)).catch((cause: unknown) => {
      throw new MvmError("libvirt", `${asMvmError(error).message}; what was added could not be taken out`, {
        cause,
      })
    })
    throw error
  }
}

/** @throws MvmError `config` naming the element, with the command that changes it. */
function launchFilesOf(domain: Domain, edit: string): ReturnType<Domain["launchFiles"]> {
  try {
    return domain.launchFiles()
  } catch (error) {
    const { code, message, hint } = asMvmError(error)
    throw new MvmError(code, message, { cause: error, hint: hint ?? edit })
  }
}

function requireFindable({ path }: Arena): void {
  if (dirname(path) === SHARED_MEMORY) return
  throw new MvmError("config", `the arena ${path} is not in ${SHARED_MEMORY}, where libvirt looks for it`, {
    hint: "start mvm serve without --arena-file",
  })
}

/** With what libvirt shows to its owner alone: left out, it would be lost when the domain is defined again. */
async function inactive(virsh: Virsh, domain: string): Promise<Domain> {
  return Domain.parse(await virsh.run(["dumpxml", "--inactive", "--security-info", domain]))
}

async function define({ stateDir }: StartParts, virsh: Virsh, domain: Domain): Promise<void> {
  const file = join(stateDir.runDir, `${domain.uuid}.xml`)
  writeFileSync(file, String(domain), { mode: 0o600 })
  try {
    await virsh.run(["define", file])
  } finally {
    rmSync(file, { force: true })
  }
}

async function requireShutOff(virsh: Virsh, domain: Domain, missing: readonly string[]): Promise<void> {
  const state = (await virsh.run(["domstate", domain.uuid])).trim()
  if (state === SHUT_OFF) return
  throw new MvmError(
    "vm_state",
    `the domain ${domain.name} is ${state}: ${missing.join(", ")} can change only while it is shut off`,
    { hint: `${virsh.command("shutdown", domain.name)}, then again` },
  )
}

/** libvirt may run its QEMUs as another user since. */
async function withUser(parts: AdoptionParts, record: VmRecord, qemuUid: number): Promise<VmRecord> {
  if (record.config.qemuUid === qemuUid) return record
  const config = { ...record.config, qemuUid }
  await writeSettings(parts, record, { config, change: { qemuUid }, tags: undefined })
  parts.machines.share()
  return { ...record, config }
}

/** The QEMUs of a user's own daemon come and go with that user's session. @throws MvmError `usage`. */
function requireSystem({ uri, isSession }: Virsh): void {
  if (!isSession) return
  throw new MvmError(
    "usage",
    `--connect: ${uri} is one user's own: only a system daemon's domains can be adopted`,
    {
      hint: `define the domain at ${DEFAULT_URI}, and adopt it there`,
    },
  )
}

function alreadyThere(records: readonly VmRecord[], name: string, domain: Domain): VmRecord | undefined {
  const same = records.find(({ config }) => config.libvirt?.domain === domain.uuid)
  if (same && same.name !== name) {
    throw new MvmError("exists", `the domain ${domain.name} is the VM ${same.name} already`)
  }
  return same
}

function confinementOf(
  { arena }: AdoptionParts,
  capabilities: string,
  domain: Domain,
  needed: MvmParts,
): Pick<Adopted, "apparmor" | "selinux"> {
  const models = securityModels(capabilities)
  const rules = apparmorRules({ ...needed, arena: needed.arena && arena.path })
  return {
    apparmor: isConfined(models, domain, "apparmor") ? missingRules(rules) : [],
    selinux: isConfined(models, domain, "selinux"),
  }
}

/** @throws MvmError `libvirt`, `not_found`. */
function qemuUser(capabilities: string, { ownerLabel }: Domain): Account {
  const own = ownerLabel === undefined ? undefined : accountOfLabel(ownerLabel)
  const labelled = own ?? qemuAccount(capabilities)
  // A daemon that gives its QEMUs to no user runs them as itself.
  return labelled ?? { uid: 0, gids: [0] }
}
