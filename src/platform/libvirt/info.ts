/**
 * @module platform/libvirt/info
 *
 * What libvirt knows of a domain beside its XML.
 *
 * @spec virsh(1), dominfo
 */

import { MvmError } from "../../lib/errors.ts"
import { shellWord } from "../../lib/shell.ts"
import type { Virsh } from "./virsh.ts"

export interface DomainInfo {
  /** libvirt forgets a transient domain when it ends. */
  readonly isPersistent: boolean
  /** The next start would restore an image of the domain's memory: no boot, with a vTPM that is not restored. */
  readonly hasManagedSave: boolean
}

/** @param domain name or UUID. @throws MvmError as {@link Virsh.run}. */
export async function domainInfo(virsh: Virsh, domain: string): Promise<DomainInfo> {
  const facts = await virsh.run(["dominfo", domain])
  return {
    isPersistent: /^Persistent:\s+yes$/m.test(facts),
    hasManagedSave: /^Managed save:\s+yes$/m.test(facts),
  }
}

/** @throws MvmError `vm_state` naming the commands that make the domain of that name persistent. */
export function requirePersistent(virsh: Virsh, name: string, { isPersistent }: DomainInfo): void {
  if (isPersistent) return
  // The XML holds what libvirt shows to its owner alone, passwords among it: the file is for nobody else either.
  const file = `./${name}.xml`
  const dump = virsh.command("dumpxml", "--inactive", "--security-info", name)
  throw new MvmError("vm_state", `the domain ${name} is transient: what is added to it would be lost`, {
    hint: `(umask 077; ${dump} >${shellWord(file)}; ${virsh.command("define", file)})`,
  })
}

/** @param name the domain's. @throws MvmError `vm_state` naming the command that removes the image. */
export function requireNoManagedSave(virsh: Virsh, name: string, { hasManagedSave }: DomainInfo): void {
  if (!hasManagedSave) return
  throw new MvmError(
    "vm_state",
    `the domain ${name} has a managed save: it would be restored, and its vTPM is not`,
    { hint: `${virsh.command("managedsave-remove", name)} drops what was saved; it boots then` },
  )
}
