/** @module test/platform/folder */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  Folder,
  nextData,
  nextHole,
  sameTime,
  setModified,
  statusOf,
  tryLock,
} from "../../src/platform/folder.ts"

let path = ""
let folder: Folder
beforeAll(() => {
  path = mkdtempSync(join(tmpdir(), "mvm-folder-"))
  folder = Folder.open(path)
})
afterAll(() => {
  folder.close()
  rmSync(path, { recursive: true })
})

const name = (text: string): Uint8Array => Buffer.from(text)

describe("a folder", () => {
  test("shows names as the bytes they are, and what they stand for", () => {
    writeFileSync(Buffer.concat([Buffer.from(`${path}/caf`), Buffer.of(0xe9)]), "x")
    mkdirSync(join(path, "sub"), { mode: 0o750 })
    symlinkSync("nowhere", join(path, "link"))
    Bun.spawnSync(["mkfifo", join(path, "fifo")])
    const found = folder.names().map((bytes) => Buffer.from(bytes).toString("latin1"))
    expect(found.sort()).toEqual(["café", "fifo", "link", "sub"])
    expect(folder.status(name("sub"))).toMatchObject({ kind: "directory", mode: 0o750 })
    expect(folder.status(name("link"))).toMatchObject({ kind: "symlink" })
    expect(folder.status(name("fifo"))).toMatchObject({ kind: "special" })
    expect(folder.status(name("absent"))).toBeUndefined()
    const status = folder.status(Buffer.from("caf\xe9", "latin1"))
    expect(status).toMatchObject({ kind: "file", lengthBytes: 1, links: 1, uid: process.geteuid!() })
    expect(Buffer.from(folder.readLink(name("link"))).toString()).toBe("nowhere")
  })

  test("follows no link, to a folder or to a file", () => {
    mkdirSync(join(path, "real"))
    symlinkSync("real", join(path, "alias"))
    writeFileSync(join(path, "real/file"), "x")
    symlinkSync("real/file", join(path, "file"))
    expect(() => folder.enter(name("alias"))).toThrow(/ENOTDIR|ELOOP/)
    expect(() => folder.openFile(name("file"), constants.O_RDWR)).toThrow("ELOOP")
    expect(() => folder.openFile(name("a\0b"), constants.O_RDONLY)).toThrow("NUL")
  })

  test("stays itself when it is moved and another takes its name", () => {
    mkdirSync(join(path, "was"))
    const held = folder.enter(name("was"))
    folder.rename(name("was"), name("is"))
    symlinkSync("real", join(path, "was"))
    closeSync(held.openFile(name("new"), constants.O_WRONLY | constants.O_CREAT))
    held.close()
    expect(statSync(join(path, "is/new")).isFile()).toBe(true)
    expect(() => statSync(join(path, "real/new"))).toThrow("ENOENT")
  })

  test.each([
    [0, 1],
    [-1, 999_999_999],
    [-14_182_940, 1],
    [4_000_000_000, 123_456_789],
  ])("sets times to the nanosecond: %d s and %d ns", (seconds, nanoseconds) => {
    const modified = { seconds, nanoseconds }
    const fd = folder.openFile(name("timed"), constants.O_RDWR | constants.O_CREAT)
    setModified(fd, modified)
    expect(statusOf(fd).modified).toEqual(modified)
    closeSync(fd)
    folder.link(name(`l${seconds}`), name("timed"))
    folder.setTime(name(`l${seconds}`), modified)
    expect(folder.status(name(`l${seconds}`))?.modified).toEqual(modified)
    expect(sameTime(modified, { seconds, nanoseconds: nanoseconds + 1 })).toBe(false)
  })

  test("knows how much is free, and names that are gone", () => {
    expect(folder.freeBytes()).toBeGreaterThan(0)
    writeFileSync(join(path, "gone"), "")
    folder.remove(name("gone"))
    expect(() => folder.remove(name("gone"))).toThrow("ENOENT")
    expect(() => Folder.open(join(path, "gone"))).toThrow("ENOENT")
  })
})

test("data and holes of a sparse file are found where they are", () => {
  const file = join(path, "sparse")
  writeFileSync(file, "")
  truncateSync(file, 10 << 20)
  const fd = openSync(file, "r+")
  writeSync(fd, "x", 4 << 20)
  expect([nextData(fd, 0), nextHole(fd, 0)]).toEqual([4 << 20, 0])
  expect(nextHole(fd, 4 << 20)).toBe((4 << 20) + 4096)
  expect(nextData(fd, 5 << 20)).toBeUndefined()
  closeSync(fd)
  expect(readFileSync(file).length).toBe(10 << 20)
})

test("a lock is held by one descriptor at a time, and ends with it", () => {
  const first = openSync(join(path, "locked"), "w")
  const second = openSync(join(path, "locked"), "r")
  expect([tryLock(first), tryLock(second)]).toEqual([true, false])
  closeSync(first)
  expect(tryLock(second)).toBe(true)
  closeSync(second)
})
