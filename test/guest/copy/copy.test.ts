/** @module test/guest/copy/copy */

import { afterAll, describe, expect, test } from "bun:test"
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { Scratch, differences, holes, manyFiles, noise, occupied, varied } from "./trees.ts"
import { pull, push } from "./copies.ts"

const MIB = 1 << 20
const scratch = new Scratch()
afterAll(() => scratch.remove())

let count = 0
/** A source and a target of a test's own. */
function places(): { source: string; target: string } {
  count += 1
  return { source: scratch.folder(`${count}/source`), target: scratch.folder(`${count}/target`) }
}

describe("a copy", () => {
  test("of a varied tree is equal to it, put there and taken back, and a second one transfers nothing", async () => {
    const { source, target } = places()
    varied(source)
    const put = await push([`${source}/.`], target)
    expect([put.error, put.served]).toEqual([undefined, undefined])
    expect(differences(source, target)).toBe("")
    const again = await push([`${source}/.`], target)
    expect(again.summary).toEqual({ ...put.summary, sentBytes: 0, same: put.summary?.entries } as never)
    const back = scratch.folder("back")
    const taken = await pull(target, [""], back)
    expect([taken.error, taken.served]).toEqual([undefined, undefined])
    expect(differences(source, back)).toBe("")
    expect((await pull(target, ["."], back)).summary?.sentBytes).toBe(0)
  })

  test("names each source by its last component, and makes the folder it is put into", async () => {
    const { source, target } = places()
    mkdirSync(join(source, "a/b"), { recursive: true })
    writeFileSync(join(source, "a/b/c"), "c")
    writeFileSync(join(source, "d"), "d")
    const { error } = await push([join(source, "a/"), join(source, "d")], target, "new//./folder")
    expect(error).toBeUndefined()
    expect(differences(source, join(target, "new/folder"))).toBe("")
    const back = scratch.folder(`${count}/back`)
    expect((await pull(target, ["new/folder/a/b", "new/folder/d"], back)).error).toBeUndefined()
    expect(readdirSync(back).sort()).toEqual(["b", "d"])
    expect(readFileSync(join(back, "b/c"), "utf8")).toBe("c")
  })

  test("without -r names a folder it leaves out, copies the rest, and ends with status 2", async () => {
    const { source, target } = places()
    mkdirSync(join(source, "folder"))
    writeFileSync(join(source, "file"), "x")
    const put = await push([join(source, "folder"), join(source, "file")], target, "", { recursive: false })
    expect([put.error?.message, put.error?.status]).toEqual(["folder: it is a folder", 2])
    expect(readdirSync(target)).toEqual(["file"])
    const back = scratch.folder(`${count}/back`)
    const taken = await pull(source, ["folder", "file"], back, { recursive: false })
    expect([taken.error?.message, taken.error?.status]).toEqual(["folder: the sender: it is a folder", 2])
    expect(readdirSync(back)).toEqual(["file"])
  })

  test("of what is not there says so, and takes the rest", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "there"), "x")
    await expect(push([join(source, "absent")], target)).resolves.toMatchObject({
      error: { code: "usage", message: `${join(source, "absent")}: no such file or folder` },
    })
    const taken = await pull(source, ["absent", "no/such", "there"], target)
    expect(taken.error?.message).toBe(
      "absent: the sender: no such file or folder, and 1 more were not copied",
    )
    expect(readdirSync(target)).toEqual(["there"])
  })

  test("replaces a file and a link in one step, and refuses to put one in the place of a folder", async () => {
    const { source, target } = places()
    const old = noise(2 * MIB)
    writeFileSync(join(source, "file"), noise(100))
    writeFileSync(join(source, "link"), "now a file")
    writeFileSync(join(source, "folder"), "now a file")
    symlinkSync("elsewhere", join(source, "other"))
    writeFileSync(join(target, "file"), old)
    symlinkSync("file", join(target, "link"))
    mkdirSync(join(target, "folder"))
    mkdirSync(join(target, "other"))
    const { error, summary } = await push([`${source}/.`], target)
    expect(error?.message).toBe("folder: a folder is in its place, and 1 more were not copied")
    expect(summary?.refused).toBe(2)
    expect(readFileSync(join(target, "file"))).toEqual(readFileSync(join(source, "file")))
    expect(readFileSync(join(target, "link"), "utf8")).toBe("now a file")
    expect(statSync(join(target, "folder")).isDirectory()).toBe(true)
  })

  test("drops set-id and sticky bits", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), "x")
    mkdirSync(join(source, "folder"))
    chmodSync(join(source, "file"), 0o6755)
    chmodSync(join(source, "folder"), 0o3777)
    expect((await push([`${source}/.`], target)).error).toBeUndefined()
    expect(statSync(join(target, "file")).mode & 0o7777).toBe(0o755)
    expect(statSync(join(target, "folder")).mode & 0o7777).toBe(0o777)
  })

  test("leaves out devices, fifos, sockets and names with control characters, and names them", async () => {
    const { source, target } = places()
    Bun.spawnSync(["mkfifo", join(source, "fifo")])
    writeFileSync(join(source, "bell\u0007"), "x")
    writeFileSync(join(source, "csi\u009b31m"), "x")
    writeFileSync(join(source, "good"), "x")
    const { error, reports } = await push([`${source}/.`, "/dev/null"], target)
    expect(error?.status).toBe(6)
    const refused = reports.filter(({ outcome }) => outcome === "refused")
    expect(refused.map(({ path }) => Buffer.from(path).toString()).sort()).toEqual([
      "bell\u0007",
      "csi\u009b31m",
      "fifo",
      "null",
    ])
    expect(readdirSync(target)).toEqual(["good"])
  })

  test("of 1,500 small files answers none of them by itself", async () => {
    const { source, target } = places()
    manyFiles(source, 1500)
    let turns = 0
    let last = ""
    const { error, summary } = await push([`${source}/.`], target, "", {
      prepare: ({ fromA, fromB }) => {
        for (const [name, pipe] of [
          ["a", fromA],
          ["b", fromB],
        ] as const) {
          pipe.tap = (chunk) => {
            if (last !== name) turns += 1
            last = name
            return chunk
          }
        }
      },
    })
    expect(error).toBeUndefined()
    expect(differences(source, target)).toBe("")
    expect(summary?.files).toBe(1500)
    // Each turn of the conversation settles many files.
    expect(turns).toBeLessThan(1000)
  })
})

describe("a sparse file", () => {
  test("stays sparse, and its holes do not travel", async () => {
    const { source, target } = places()
    holes(join(source, "image"), 256 * MIB)
    truncateSync(join(source, "image"), 300 * MIB + 1)
    const { error, summary } = await push([join(source, "image")], target)
    expect(error).toBeUndefined()
    expect(differences(source, target)).toBe("")
    expect(summary?.sentBytes).toBeLessThan(MIB)
    expect(occupied(join(target, "image"))).toBeLessThan(2 * MIB)
  })

  test("that becomes sparser in the next version does so at the target", async () => {
    const { source, target } = places()
    const path = join(source, "image")
    writeFileSync(path, noise(16 * MIB))
    expect((await push([path], target)).error).toBeUndefined()
    Bun.spawnSync(["fallocate", "--punch-hole", "--offset", "1000000", "--length", "12000000", path])
    utimesSync(path, 5, 5)
    const { error, summary } = await push([path], target)
    expect(error).toBeUndefined()
    expect(differences(source, target)).toBe("")
    expect(summary?.sentBytes).toBeLessThan(2 * MIB)
    expect(occupied(join(target, "image"))).toBeLessThan(6 * MIB)
  })
})

describe("the next version of a file", () => {
  test("sends the blocks that differ alone, also with the same length and time where asked", async () => {
    const { source, target } = places()
    const path = join(source, "file")
    const bytes = noise(20 * MIB)
    writeFileSync(path, bytes)
    utimesSync(path, 1000, 1000)
    expect((await push([path], target)).error).toBeUndefined()
    bytes[9 * MIB] = (bytes[9 * MIB] ?? 0) ^ 1
    writeFileSync(path, bytes)
    utimesSync(path, 1000, 1000)
    // Length and time say that it is the same.
    expect((await push([path], target)).summary?.same).toBe(1)
    const { error, summary, reports } = await push([path], target, "", { checksum: true })
    expect([error, summary?.sentBytes, reports[0]?.outcome]).toEqual([undefined, MIB, "resumed"])
    expect(differences(source, target)).toBe("")
    appendFileSync(path, "more")
    expect((await push([path], target)).summary?.sentBytes).toBe(4)
    expect(differences(source, target)).toBe("")
  })

  test("is sent whole where the receiver shows nothing of what is there", async () => {
    const { source, target } = places()
    const path = join(source, "file")
    writeFileSync(path, noise(3 * MIB))
    await push([path], target)
    utimesSync(path, 1000, 1000)
    const { error, summary } = await push([path], target, "", { service: { mayRead: false } })
    expect([error, summary?.sentBytes]).toEqual([undefined, 3 * MIB])
  })
})

describe("a file that changes while it is copied", () => {
  test("is copied as it is afterwards", async () => {
    const { source, target } = places()
    const path = join(source, "file")
    writeFileSync(path, noise(4 * MIB))
    let changes = 1
    const { error } = await push([path], target, "", {
      prepare: ({ fromA }) => {
        fromA.tap = (chunk) => {
          if (fromA.passedBytes > MIB && changes-- > 0) appendFileSync(path, "more")
          return chunk
        }
      },
    })
    expect(error).toBeUndefined()
    expect(differences(source, target)).toBe("")
  })

  test("again and again, or vanishes, is named and leaves nothing", async () => {
    const { source, target } = places()
    const path = join(source, "file")
    writeFileSync(path, noise(2 * MIB))
    writeFileSync(join(source, "other"), "x")
    const { error } = await push([`${source}/.`], target, "", {
      prepare: ({ fromA }) => {
        fromA.tap = (chunk) => {
          if (chunk.length > MIB / 2) appendFileSync(path, "x")
          return chunk
        }
      },
    })
    expect([error?.message, error?.status]).toEqual(["file: it changes while it is copied", 1])
    expect(readdirSync(target)).toEqual(["other"])
  })
})

describe("what a service allows", () => {
  test("is to read, to write, or both", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), "x")
    const put = await push([join(source, "file")], target, "", { service: { mayWrite: false } })
    expect([put.error?.message, put.error?.status]).toEqual(["this folder is read-only", 6])
    const taken = await pull(source, ["file"], target, { service: { mayRead: false } })
    expect([taken.error?.message, taken.error?.status]).toEqual(["this folder is write-only", 6])
    expect(readdirSync(target)).toEqual([])
  })

  test.each([
    ["bytes", { maxBytes: 3 * MIB }, "the receiver takes at most 3.00 MiB at a time", 6],
    ["files", { maxFiles: 2 }, "the receiver takes at most 2 files at a time", 6],
    ["free space", { minFreeBytes: 1e15 }, "the receiver keeps 909.5 TiB of its disk free", 1],
  ] as const)("is bounded in %s", async (_, limits, message, status) => {
    const { source, target } = places()
    for (const name of ["a", "b", "c", "d"]) writeFileSync(join(source, name), noise(MIB))
    const all = { maxBytes: Infinity, maxFiles: Infinity, minFreeBytes: 0, ...limits }
    const put = await push([`${source}/.`], target, "", { service: { limits: all } })
    expect([put.error?.message, put.error?.status]).toEqual([message, status])
    const taken = await pull(source, [""], target, { service: { limits: all } })
    expect([taken.error?.message, taken.error?.status]).toEqual([message, status])
    for (const name of readdirSync(target)) expect(["a", "b", "c"]).toContain(name)
  })

  test("is bounded also for a file that grows after it was announced", async () => {
    const { source, target } = places()
    const path = join(source, "file")
    writeFileSync(path, noise(MIB))
    let grown = false
    const put = await push([path], target, "", {
      service: { limits: { maxBytes: 2 * MIB, maxFiles: 10, minFreeBytes: 0 } },
      prepare: ({ fromB }) => {
        fromB.tap = (chunk) => {
          if (!grown) appendFileSync(path, noise(2 * MIB))
          grown = true
          return chunk
        }
      },
    })
    expect(put.error?.message).toBe("the receiver takes at most 2.00 MiB at a time")
    expect(existsSync(join(target, "file"))).toBe(false)
  })
})
