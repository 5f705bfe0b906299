/**
 * @module platform/libvirt/apparmor
 *
 * What QEMU may open where libvirt confines it by AppArmor: libvirt writes a profile for each domain, and does not know
 * of a vTPM that another program runs, nor of memory that is plugged in later. The administrator's own file for all of
 * them is included by each.
 *
 * @spec libvirt drvqemu: AppArmor; apparmor.d(5)
 */

import { basename, dirname, join } from "node:path"
import type { Domain } from "./domain.ts"
import type { MvmParts } from "./elements.ts"

/** Included by the abstraction that every domain's profile includes. */
export const APPARMOR_FILE = "/etc/apparmor.d/local/abstractions/libvirt-qemu"

/** Whether the domain's QEMU is confined. @param models of libvirt's security, as its capabilities name them */
export function isConfined(models: readonly string[], domain: Domain): boolean {
  if (!models.includes("apparmor")) return false
  return !domain
    .elements("seclabel")
    .some((label) => label.getAttribute("type") === "none" && label.getAttribute("model") !== "dac")
}

/** Lines for {@link APPARMOR_FILE}, for all VMs of this MVM. @param sharedMemory the folder of the arena's file */
export function apparmorRules({ arena, vtpmSocket, linkSocket }: MvmParts, sharedMemory: string): string[] {
  const ofAny = (path: string): string => join(dirname(dirname(path)), "*", basename(path))
  const paths = [ofAny(vtpmSocket), ofAny(linkSocket)]
  // The arena, and the memory of channels, whose names begin as its does.
  if (arena) paths.push(join(sharedMemory, arena.name), join(sharedMemory, `${arena.name}-*`))
  return paths.map((path) => `"${path}" rw,`)
}
