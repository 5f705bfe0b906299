/**
 * @module test/mvm/vm/followed/access
 *
 * What QEMU's user gets at of an MVM that is no root, as the kernel sees it.
 */

import { expect, test } from "bun:test"
import { chmodSync, chownSync, mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { requireWay, shareState } from "../../../../src/mvm/vm/followed/access.ts"
import { vmPaths } from "../../../../src/mvm/vm/vm-process.ts"
import { accessOf, EXECUTE } from "../../../../src/platform/acl.ts"
import { failure, sampleVm, scratchFolder } from "../../scratch-state.ts"

const MVM = 65533
const LIBVIRT_QEMU = 65532
const STRANGER = 65531

/** Files of an MVM that runs as {@link MVM}, with one VM whose QEMU is `qemuUid`'s. */
function shared(qemuUid: number) {
  const folder = scratchFolder()
  chmodSync(folder, 0o755)
  const path = join(folder, "state")
  const record = sampleVm("a", { kind: "libvirt" })
  const stateDir = { path, runDir: join(path, "run") }
  const paths = vmPaths(path, record.uuid, record.name)
  const arena = { path: join(folder, "arena") }
  for (const made of [path, stateDir.runDir, paths.run]) mkdirSync(made, { mode: 0o700 })
  for (const made of [arena.path, paths.link, paths.vtpmControl]) writeFileSync(made, "", { mode: 0o600 })
  for (const made of [path, stateDir.runDir, paths.run, arena.path, paths.link, paths.vtpmControl])
    chownSync(made, MVM, MVM)
  as(MVM, () => {
    shareState({ stateDir, arena }, [{ ...record, config: { ...record.config, qemuUid } }], () => paths)
  })
  return { folder, stateDir, paths, arena }
}

function as(uid: number, work: () => void): void {
  process.seteuid!(uid)
  try {
    work()
  } finally {
    process.seteuid!(0)
  }
}

/** As libvirt may start QEMU: with no capability, whichever user it is. */
function canOpen(uid: number, path: string): boolean {
  const user = [
    `--reuid=${uid}`,
    `--regid=${uid}`,
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
  ]
  return Bun.spawnSync(["setpriv", ...user, "sh", "-c", `exec <>"$0"`, path]).exitCode === 0
}

test.each([
  ["root, as libvirt can be told to run it", 0],
  ["a user of libvirt's", LIBVIRT_QEMU],
])("the QEMU of %s gets at its sockets and the arena, and others do not", (_who, uid) => {
  const { paths, arena } = shared(uid)
  for (const path of [paths.link, paths.vtpmControl, arena.path]) {
    expect([path, canOpen(uid, path), canOpen(STRANGER, path)]).toEqual([path, true, false])
  }
})

test("a folder that is closed to a root without capabilities is named", async () => {
  const { folder, stateDir } = shared(0)
  chownSync(folder, MVM, MVM)
  chmodSync(folder, 0o700)
  const root = { uid: 0, gids: [0] }
  expect(accessOf(dirname(stateDir.path), root) & EXECUTE).toBe(0)
  const { code, hint } = await failure(() => requireWay(stateDir, root))
  expect([code, hint]).toEqual(["setup", expect.stringContaining(`setfacl -m u:root:x ${folder}`)])
})
