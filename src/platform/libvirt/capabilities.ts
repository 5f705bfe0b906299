/**
 * @module platform/libvirt/capabilities
 *
 * What a libvirt daemon says of itself.
 *
 * @spec libvirt formatcaps: host/secmodel
 */

import { DOMParser, type Element } from "@xmldom/xmldom"
import { MvmError } from "../../lib/errors.ts"
import type { Account } from "../acl.ts"
import { findUser } from "../users.ts"
import { childrenOf, type Domain } from "./domain.ts"

/**
 * The user that QEMU runs as: the base label of libvirt's own model of file owners.
 *
 * @returns undefined where it has none, as for a daemon that belongs to one user
 * @throws MvmError `libvirt` for text that is no capabilities' XML.
 */
export function qemuAccount(capabilities: string): Account | undefined {
  for (const model of secModels(capabilities)) {
    if (nameOf(model) !== "dac") continue
    for (const label of childrenOf(model, "baselabel")) {
      const account = accountOfLabel(label.textContent?.trim() ?? "")
      if (account) return account
    }
  }
  return undefined
}

/** Names of what keeps QEMUs apart: "apparmor", "selinux", "dac". @throws MvmError as {@link qemuAccount}. */
export function securityModels(capabilities: string): string[] {
  return secModels(capabilities).map(nameOf)
}

/** What keeps a QEMU from files that its user may open. */
export type Confinement = "apparmor" | "selinux"

/**
 * Whether the domain's QEMU is confined by `model`: a `<seclabel type='none'>` of that model, or of none, exempts it.
 *
 * @param models of this libvirt, as {@link securityModels} has them
 * @spec libvirt formatdomain: seclabel
 */
export function isConfined(models: readonly string[], domain: Domain, model: Confinement): boolean {
  if (!models.includes(model)) return false
  return !domain
    .elements("seclabel")
    .some(
      (label) => label.getAttribute("type") === "none" && (label.getAttribute("model") || model) === model,
    )
}

function nameOf(model: Element): string {
  return childrenOf(model, "model")[0]?.textContent?.trim() ?? ""
}

function secModels(capabilities: string): Element[] {
  let root: Element | null
  try {
    root = new DOMParser({
      onError: (_level, message) => {
        throw new Error(message)
      },
    }).parseFromString(capabilities, "text/xml").documentElement
  } catch (cause) {
    throw new MvmError("libvirt", "capabilities xml: it cannot be read", { cause })
  }
  const host = root && childrenOf(root, "host")[0]
  return host ? childrenOf(host, "secmodel") : []
}

/**
 * The user of a label that says owner and group: "+64055:+107", "libvirt-qemu:kvm".
 *
 * @returns undefined for a label that says neither
 * @throws MvmError `not_found` for a user that this machine has not.
 */
export function accountOfLabel(label: string): Account | undefined {
  const [user = "", group = ""] = label.split(":")
  if (user === "") return undefined
  const { uid, gid } = /^\+\d+$/.test(user) ? { uid: Number(user), gid: undefined } : findUser(user)
  const gids = /^\+\d+$/.test(group) ? [Number(group)] : gid === undefined ? [] : [gid]
  return { uid, gids }
}
