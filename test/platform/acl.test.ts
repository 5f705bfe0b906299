import { afterAll, describe, expect, test } from "bun:test"
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { accessOf, EXECUTE, isShared, READ, shareAlso, shareWith, WRITE } from "../../src/platform/acl.ts"

const folder = mkdtempSync(join(tmpdir(), "mvm-acl-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const NOBODY = { uid: 65534, gids: [65534] }
const OTHER = { uid: 64000, gids: [64000] }
let count = 0

function file(mode = 0o600): string {
  const path = join(folder, `f${count++}`)
  writeFileSync(path, "x")
  chmodSync(path, mode)
  return path
}

describe("a file of ours", () => {
  test("is closed to others until one of them is let at it, and then to the rest", () => {
    const path = file()
    expect([accessOf(path, NOBODY), isShared(path)]).toEqual([0, false])
    shareWith(path, [{ uid: NOBODY.uid, permissions: READ | WRITE }])
    expect([accessOf(path, NOBODY), accessOf(path, OTHER), isShared(path)]).toEqual([READ | WRITE, 0, true])
    expect(statSync(path).mode & 0o007).toBe(0)
  })

  test("is closed again to whom is not named again", () => {
    const path = file()
    shareWith(path, [{ uid: NOBODY.uid, permissions: READ }])
    shareWith(path, [{ uid: OTHER.uid, permissions: READ | WRITE }])
    expect([accessOf(path, NOBODY), accessOf(path, OTHER)]).toEqual([0, READ | WRITE])
    shareWith(path, [])
    expect([accessOf(path, OTHER), isShared(path), statSync(path).mode & 0o777]).toEqual([0, false, 0o600])
  })

  test("is open to one more without closing it to the others", () => {
    const path = file()
    shareWith(path, [{ uid: NOBODY.uid, permissions: READ }])
    shareAlso(path, { uid: OTHER.uid, permissions: READ | WRITE })
    shareAlso(path, { uid: OTHER.uid, permissions: WRITE })
    expect([accessOf(path, NOBODY), accessOf(path, OTHER)]).toEqual([READ, WRITE])
  })

  test("is really readable by that user, as the kernel sees it", () => {
    chmodSync(folder, 0o755)
    const path = file()
    const read = (): boolean => {
      const command = [
        "setpriv",
        `--reuid=${NOBODY.uid}`,
        `--regid=${NOBODY.uid}`,
        "--clear-groups",
        "cat",
        path,
      ]
      return Bun.spawnSync(command).exitCode === 0
    }
    expect(read()).toBe(false)
    shareWith(path, [{ uid: NOBODY.uid, permissions: READ }])
    expect(read()).toBe(process.geteuid?.() === 0)
  })
})

test("modes decide where there is no list", () => {
  const path = file(0o641)
  const own = { uid: statSync(path).uid, gids: [] }
  expect(accessOf(path, NOBODY)).toBe(EXECUTE)
  expect(accessOf(path, { uid: NOBODY.uid, gids: [statSync(path).gid] })).toBe(READ)
  expect(accessOf(path, own)).toBe(READ | WRITE)
  expect(accessOf(file(0), own)).toBe(0)
})
