/** @module test/guest/copy/confinement */

import { afterAll, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { Scratch, noise } from "./trees.ts"
import { pull, push } from "./copies.ts"

const scratch = new Scratch()
afterAll(() => scratch.remove())

let count = 0
function places(): { source: string; target: string; outside: string } {
  count += 1
  const outside = scratch.folder(`${count}/outside`)
  writeFileSync(join(outside, "secret"), "secret")
  return { source: scratch.folder(`${count}/source`), target: scratch.folder(`${count}/target`), outside }
}

function names(folder: string): string[] {
  return readdirSync(folder).sort()
}

describe("a path that is asked for", () => {
  test.each([
    "..",
    "../outside",
    "a/../../outside",
    "/etc",
    "a/\u001b[2J",
    `${"x/".repeat(201)}x`,
    "y".repeat(256),
  ])("%j is refused, to write and to read", async (path) => {
    const { source, target, outside } = places()
    writeFileSync(join(source, "file"), "x")
    const put = await push([join(source, "file")], target, path)
    expect(put.error?.status).toBe(6)
    expect(names(target)).toEqual([])
    expect(names(outside)).toEqual(["secret"])
    const taken = await pull(target, [path], source)
    expect(taken.error?.status).toBe(6)
    expect(names(source)).toEqual(["file"])
  })

  test("that leads through a link is refused, wherever the link leads", async () => {
    const { source, target, outside } = places()
    writeFileSync(join(source, "file"), "x")
    mkdirSync(join(target, "inside"))
    symlinkSync(outside, join(target, "out"))
    symlinkSync("inside", join(target, "in"))
    for (const path of ["out", "in", "out/deeper", "in/deeper"]) {
      const { error } = await push([join(source, "file")], target, path)
      expect(error?.message).toMatch(/in its place$/)
      expect((await pull(target, [`${path}/secret`], source)).error?.message).toMatch(/in its place$/)
    }
    expect(names(outside)).toEqual(["secret"])
    expect(names(source)).toEqual(["file"])
    // The link itself may be taken: as a link.
    const taken = await pull(target, ["in"], source)
    expect(taken.error).toBeUndefined()
    expect(readlinkSync(join(source, "in"))).toBe("inside")
  })
})

describe("a link at the target", () => {
  test("in the place of a folder is not followed: what would lie below is refused and named once", async () => {
    const { source, target, outside } = places()
    mkdirSync(join(source, "tree/below"), { recursive: true })
    for (const name of ["tree/a", "tree/below/b", "c"]) writeFileSync(join(source, name), "x")
    symlinkSync(outside, join(target, "tree"))
    const { error, summary } = await push([`${source}/.`], target)
    expect(error?.message).toBe("tree: something else than a folder is in its place")
    expect(summary?.refused).toBe(1)
    expect(names(outside)).toEqual(["secret"])
    expect(names(target)).toEqual(["c", "tree"])
  })

  test("in the place of a file is replaced, and what it leads to stays", async () => {
    const { source, target, outside } = places()
    writeFileSync(join(source, "file"), "new")
    symlinkSync(join(outside, "secret"), join(target, "file"))
    expect((await push([join(source, "file")], target)).error).toBeUndefined()
    expect(readFileSync(join(target, "file"), "utf8")).toBe("new")
    expect(readFileSync(join(outside, "secret"), "utf8")).toBe("secret")
  })
})

describe("a link that is copied", () => {
  const outward = ["/etc/passwd", "../outside", "a/../..", "deep/../../outside", "./../x", "../../x"]
  test.each(outward)("to %j is refused, as it leads out of the target", async (text) => {
    const { source, target } = places()
    symlinkSync(text, join(source, "link"))
    const { error } = await push([join(source, "link")], target)
    expect([error?.status, error?.message]).toEqual([
      6,
      `link: the link leads out of the target folder, to ${text}`,
    ])
    expect(names(target)).toEqual([])
  })

  test.each(outward)("to %j is made where the receiver takes any link, and never followed", async (text) => {
    const { source, target, outside } = places()
    symlinkSync(text, join(source, "link"))
    const { error } = await push([join(source, "link")], target, "", { service: { links: "all" } })
    expect(error).toBeUndefined()
    expect(readlinkSync(join(target, "link"))).toBe(text)
    // Now a folder of that name, with something in it.
    const other = scratch.folder(`${count}/other/link`)
    writeFileSync(join(other, "file"), "x")
    const next = await push([other], target, "", { service: { links: "all" } })
    expect(next.error?.message).toBe("link: something else than a folder is in its place")
    expect(names(outside)).toEqual(["secret"])
  })

  test("may climb within the target", async () => {
    const { source, target } = places()
    mkdirSync(join(source, "a/b"), { recursive: true })
    symlinkSync("../../a/./b//", join(source, "a/b/link"))
    symlinkSync("..", join(source, "a/up"))
    const { error } = await push([`${source}/.`], target)
    expect(error).toBeUndefined()
    expect(readlinkSync(join(target, "a/b/link"))).toBe("../../a/./b//")
  })
})

describe("somebody who changes the target meanwhile", () => {
  test("by putting links in the place of folders leads nothing out of it", async () => {
    const { source, target, outside } = places()
    for (let index = 0; index < 40; index += 1) {
      const folder = scratch.folder(`${count}/source/d${index}`)
      for (let file = 0; file < 10; file += 1) writeFileSync(join(folder, `f${file}`), noise(20_000))
    }
    const { error } = await push([`${source}/.`], target, "", {
      prepare: ({ fromA }) => {
        fromA.tap = (chunk) => {
          // Each folder as soon as it is there: moved aside, and a link out put where it was.
          for (const name of readdirSync(target)) {
            if (!/^d\d+$/.test(name) || existsSync(join(target, `${name}.aside`))) continue
            renameSync(join(target, name), join(target, `${name}.aside`))
            symlinkSync(outside, join(target, name))
          }
          return chunk
        }
      },
    })
    expect(names(outside)).toEqual(["secret"])
    // Folders that were entered are filled wherever they are now; those that were not are refused.
    if (error) expect(error.message).toMatch(/in its place/)
  })

  test("in the source leads nobody out of what is served", async () => {
    const { source, target, outside } = places()
    mkdirSync(join(source, "tree"))
    for (let file = 0; file < 200; file += 1) writeFileSync(join(source, `tree/f${file}`), noise(10_000))
    writeFileSync(join(outside, "f199"), "secret")
    let swapped = false
    await pull(source, ["tree"], target, {
      prepare: ({ fromB }) => {
        fromB.tap = (chunk) => {
          if (!swapped) {
            swapped = true
            renameSync(join(source, "tree"), join(source, "aside"))
            symlinkSync(outside, join(source, "tree"))
            Bun.spawnSync([
              "sh",
              "-ec",
              'rm "$1/f198"; ln -s "$2/secret" "$1/f198"',
              "sh",
              join(source, "aside"),
              outside,
            ])
          }
          return chunk
        }
      },
    })
    for (const name of names(join(target, "tree"))) {
      expect(readFileSync(join(target, "tree", name), "utf8")).not.toContain("secret")
    }
  })
})
