/** @module test/platform/access */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { accessTo, actorOf, thisActor } from "../../src/platform/access.ts"

const OWNER = { uid: 12, gid: 34, groups: [] }
const MEMBER = { uid: 1, gid: 1, groups: [7, 34] }
const OTHER = { uid: 1, gid: 1, groups: [7] }
const ROOT = { uid: 0, gid: 0, groups: [] }

let folder: string
let file: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "mvm-access-"))
  chmodSync(folder, 0o755)
  mkdirSync(join(folder, "in"), { mode: 0o755 })
  file = join(folder, "in/file")
  writeFileSync(file, "")
  chownSync(file, 12, 34)
})
afterAll(() => rmSync(folder, { recursive: true }))

/** As the kernel sees it: the file opened by a process of that user. */
function really(actor: typeof OTHER, write: boolean): string {
  const groups = actor.groups.length > 0 ? [`--groups=${actor.groups}`] : ["--clear-groups"]
  const child = Bun.spawnSync([
    ...["setpriv", `--reuid=${actor.uid}`, `--regid=${actor.gid}`, ...groups],
    ...["sh", "-c", write ? `exec <>"$0"` : `exec <"$0"`, file],
  ])
  return child.exitCode === 0 ? "open" : "denied"
}

describe.each([0o640, 0o660, 0o604, 0o046, 0o000, 0o777])("a file of mode %o", (mode) => {
  test.each([
    ["its owner", OWNER],
    ["a member of its group", MEMBER],
    ["anybody else", OTHER],
  ])("is open to %s as the kernel has it", (_who, actor) => {
    chmodSync(file, mode)
    for (const write of [false, true])
      expect(accessTo(file, actor, { write })).toBe(really(actor, write) as "open")
  })

  test("is open to root", () => {
    chmodSync(file, mode)
    expect(accessTo(file, ROOT, { write: true })).toBe("open")
  })
})

test("a folder that cannot be searched closes what is in it", () => {
  chmodSync(file, 0o777)
  chmodSync(join(folder, "in"), 0o700)
  expect([accessTo(file, OTHER), really(OTHER, false)]).toEqual(["denied", "denied"])
  chmodSync(join(folder, "in"), 0o755)
})

test("what is not there is absent", () => {
  expect(accessTo(join(folder, "nothing"), ROOT)).toBe("absent")
})

test("a process acts as its effective user, with its groups", () => {
  expect(actorOf(process.pid)).toEqual(thisActor())
  expect(actorOf(2 ** 22 + 1)).toBeUndefined()
})
