/**
 * @module platform/libvirt/apparmor
 *
 * What QEMU may open where libvirt confines it by AppArmor: libvirt writes a profile for each domain, and does not know
 * of a vTPM that another program runs, nor of memory that is plugged in later. The administrator's own file for all of
 * them is included by each.
 *
 * @spec libvirt drvqemu: AppArmor; apparmor.d(5)
 */

import { readFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"

/** Included by the abstraction that every domain's profile includes. */
export const APPARMOR_FILE = "/etc/apparmor.d/local/abstractions/libvirt-qemu"

export interface ConfinedFiles {
  /** A VM's, in a folder of its own beside those of all others; or `*` for its folder */
  readonly vtpmSocket: string
  readonly linkSocket: string
  /** Undefined for a VM without shared memory */
  readonly arena: string | undefined
}

/** Lines for {@link APPARMOR_FILE}, for all VMs of this MVM. */
export function apparmorRules({ arena, vtpmSocket, linkSocket }: ConfinedFiles): string[] {
  const ofAny = (path: string): string => join(dirname(dirname(path)), "*", basename(path))
  const paths = [ofAny(vtpmSocket), ofAny(linkSocket)]
  // The arena, and the memory of channels, whose names begin as its does.
  if (arena) paths.push(arena, `${arena}-*`)
  return paths.map((path) => `"${path}" rw,`)
}

/** Those of `rules` that {@link APPARMOR_FILE} has not; all of them where it cannot be read. */
export function missingRules(rules: readonly string[], file = APPARMOR_FILE): string[] {
  let lines: string[] = []
  try {
    lines = readFileSync(file, "utf8").split("\n")
  } catch {
    // Each domain's profile takes it in as it is, so what is not there is not allowed.
  }
  const allowed = new Set(lines.map((line) => line.trim()))
  return rules.filter((rule) => !allowed.has(rule))
}
