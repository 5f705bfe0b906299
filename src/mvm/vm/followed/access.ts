/**
 * @module mvm/vm/followed/access
 *
 * What the QEMU of a VM that others start may reach, as its own user: its way to the VM's sockets, and the arena.
 * Everything stays the MVM's, closed to everybody else.
 */

import { lstatSync, mkdirSync } from "node:fs"
import { dirname } from "node:path"
import { MvmError } from "../../../lib/errors.ts"
import {
  accessOf,
  EXECUTE,
  isShared,
  needsGrant,
  READ,
  shareWith,
  WRITE,
  type Account,
  type Grant,
} from "../../../platform/acl.ts"
import { userName } from "../../../platform/users.ts"
import type { Arena } from "../../channels/arena.ts"
import type { VmRecord } from "../../state/registry.ts"
import type { StateDir } from "../../state/state-dir.ts"
import type { VmPaths } from "../vm-process.ts"

/** Where all VMs' QEMUs have to pass, and what all of them open. */
export interface SharedState {
  readonly stateDir: Pick<StateDir, "path" | "runDir">
  readonly arena: Pick<Arena, "path">
}

/** Whether others start this VM's QEMU, and the MVM follows. */
export function isFollowed({ kind }: Pick<VmRecord, "kind">): boolean {
  return kind === "libvirt" || kind === "external"
}

/** Lets the users of these VMs' QEMUs at what they need, and nobody whose VM is gone. @throws MvmError `io`, `setup`. */
export function shareState(
  { stateDir, arena }: SharedState,
  records: readonly VmRecord[],
  pathsOf: (record: VmRecord) => VmPaths,
): void {
  const followed = records.filter(isFollowed)
  const uids = followed.map(({ config }) => config.qemuUid)
  for (const folder of [stateDir.path, stateDir.runDir]) share(folder, grants(uids, EXECUTE))
  share(arena.path, grants(uids, READ | WRITE))
  for (const record of followed) {
    const { run, link, vtpmControl } = pathsOf(record)
    const uid = [record.config.qemuUid]
    mkdirSync(run, { recursive: true, mode: 0o700 })
    share(run, grants(uid, EXECUTE))
    // Connecting to a socket takes writing. libvirt may have made one its QEMU's own meanwhile.
    for (const socket of [link, vtpmControl]) {
      const owner = lstatSync(socket, { throwIfNoEntry: false })?.uid
      if (owner === process.geteuid?.()) share(socket, grants(uid, READ | WRITE))
    }
  }
}

/** What nobody was ever let at keeps its mode. */
function share(path: string, grants: readonly Grant[]): void {
  if (grants.length > 0 || isShared(path)) shareWith(path, grants)
}

/**
 * The folders above the state directory are not the MVM's to open.
 *
 * @throws MvmError `setup` naming the one that is closed to QEMU's user.
 */
export function requireWay(stateDir: Pick<StateDir, "path">, user: Account): void {
  for (let folder = dirname(stateDir.path); ; folder = dirname(folder)) {
    if ((accessOf(folder, user) & EXECUTE) === 0) {
      const name = userName(user.uid)
      throw new MvmError(
        "setup",
        `QEMU's user ${name} cannot reach ${stateDir.path}: ${folder} is closed to it`,
        {
          hint: `setfacl -m u:${name}:x ${folder}, or start mvm serve with another --state`,
        },
      )
    }
    if (folder === dirname(folder)) return
  }
}

function grants(uids: readonly (number | undefined)[], permissions: number): Grant[] {
  return [...new Set(uids.filter(needsGrant))].map((uid) => ({ uid, permissions }))
}
