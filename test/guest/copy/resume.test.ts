/** @module test/guest/copy/resume */

import { afterAll, describe, expect, test } from "bun:test"
import {
  closeSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../../src/lib/errors.ts"
import { Folder } from "../../../src/platform/folder.ts"
import { Partial } from "../../../src/guest/copy/partial.ts"
import { isPartialName } from "../../../src/guest/copy/names.ts"
import { Scratch, differences, holes, manyFiles, noise } from "./trees.ts"
import { pull, push, type CopySettings } from "./copies.ts"

const MIB = 1 << 20
const scratch = new Scratch()
afterAll(() => scratch.remove())

let count = 0
function places(): { source: string; target: string } {
  count += 1
  return { source: scratch.folder(`${count}/source`), target: scratch.folder(`${count}/target`) }
}

/** Breaks the stream once so many bytes went from the end that sends. */
function breakAt(bytes: number, who: "fromA" | "fromB" = "fromA"): CopySettings {
  return {
    prepare: (streams) => {
      streams[who].tap = (chunk) => {
        if (streams[who].passedBytes + chunk.length >= bytes) {
          streams.a.reset(new MvmError("aborted", "the test broke it"))
        }
        return chunk
      }
    },
  }
}

function partialsIn(folder: string): string[] {
  return readdirSync(folder).filter((name) => isPartialName(Buffer.from(name)))
}

describe("a copy that broke off", () => {
  test("left nothing under the file's name, and the next one sends only the rest", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), noise(32 * MIB))
    const broken = await push([join(source, "file")], target, "", breakAt(20 * MIB))
    expect([broken.error?.message, broken.served?.message]).toEqual([
      "the test broke it",
      "the test broke it",
    ])
    expect(readdirSync(target)).toEqual(partialsIn(target))
    expect(partialsIn(target).length).toBe(1)
    const { error, summary, reports } = await push([join(source, "file")], target)
    expect([error, reports[0]?.outcome]).toEqual([undefined, "resumed"])
    expect(summary?.sentBytes).toBeLessThan(15 * MIB)
    expect(differences(source, target)).toBe("")
  })

  test("is resumed by content: what the partial does not have right is sent again", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), noise(32 * MIB))
    await push([join(source, "file")], target, "", breakAt(20 * MIB))
    const partial = join(target, partialsIn(target)[0] ?? "")
    const fd = openSync(partial, "r+")
    writeSync(fd, "somebody was here", 5 * MIB)
    closeSync(fd)
    const { error, reports } = await push([join(source, "file")], target)
    expect([error, reports[0]?.outcome]).toEqual([undefined, "resumed"])
    expect(differences(source, target)).toBe("")
  })

  test("and whose source is another one by then, ends with that one", async () => {
    const { source, target } = places()
    const path = join(source, "file")
    writeFileSync(path, noise(32 * MIB))
    await push([path], target, "", breakAt(20 * MIB))
    writeFileSync(path, noise(7 * MIB + 5))
    const { error, summary } = await push([path], target)
    expect([error, summary?.sentBytes]).toEqual([undefined, 7 * MIB + 5])
    expect(differences(source, target)).toBe("")
  })

  test("in a sparse file resumes it with its holes", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), "")
    holes(join(source, "file"), 64 * MIB)
    const fd = openSync(join(source, "file"), "r+")
    for (let at = 0; at < 12; at += 1) writeSync(fd, noise(MIB), 0, MIB, (at * 5 + 1) * MIB)
    closeSync(fd)
    await push([join(source, "file")], target, "", breakAt(7 * MIB))
    // Something where the source has a hole, which the hole must win.
    const partial = openSync(join(target, partialsIn(target)[0] ?? ""), "r+")
    writeSync(partial, noise(MIB), 0, MIB, 4 * MIB)
    closeSync(partial)
    const { error, reports } = await push([join(source, "file")], target)
    expect([error, reports[0]?.outcome]).toEqual([undefined, "resumed"])
    expect(differences(source, target)).toBe("")
    const { blocks, size } = statSync(join(target, "file"))
    expect(blocks * 512).toBeLessThan(size / 3)
  })

  test("of small files leaves none that is not whole", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), noise(MIB / 2))
    await push([join(source, "file")], target, "", breakAt(MIB / 4))
    expect(readdirSync(target)).toEqual([])
  })

  test("anywhere, either way, is finished by the next one, with no trace of the break", async () => {
    const { source, target } = places()
    manyFiles(join(source), 300)
    writeFileSync(join(source, "large"), noise(9 * MIB))
    holes(join(source, "sparse"), 20 * MIB)
    const back = scratch.folder(`${count}/back`)
    // What is there already makes a later copy shorter, so these points lie closer and closer to its end.
    for (let round = 0; round < 20; round += 1) {
      const at = 1 + Math.floor(Math.random() * 10 * MIB)
      await push([`${source}/.`], target, "", breakAt(at, round % 4 === 3 ? "fromB" : "fromA"))
      await pull(source, [""], back, breakAt(at, round % 4 === 3 ? "fromA" : "fromB"))
    }
    const put = await push([`${source}/.`], target)
    const taken = await pull(source, [""], back)
    expect([put.error, taken.error]).toEqual([undefined, undefined])
    expect(differences(source, target)).toBe("")
    expect(differences(source, back)).toBe("")
  }, 60_000)

  test("and is not asked for again leaves a partial, which goes with the next copy of that folder", async () => {
    const { source, target } = places()
    writeFileSync(join(scratch.folder(`${count}/source/tree`), "gone"), noise(5 * MIB))
    await push([join(source, "tree")], target, "", breakAt(4 * MIB))
    expect(partialsIn(join(target, "tree")).length).toBe(1)
    Bun.spawnSync(["rm", join(source, "tree/gone")])
    expect((await push([join(source, "tree")], target)).error).toBeUndefined()
    expect(readdirSync(join(target, "tree"))).toEqual([])
  })
})

describe("a partial", () => {
  test("belongs to one copy at a time: another one is told that it is busy", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), noise(2 * MIB))
    const folder = Folder.open(target)
    const held = Partial.open(folder, Buffer.from("file"))
    const { error } = await push([join(source, "file")], target)
    expect([error?.message, error?.status]).toEqual(["file: another copy writes this file now", 3])
    held.discard()
    folder.close()
    expect((await push([join(source, "file")], target)).error).toBeUndefined()
    expect(differences(source, target)).toBe("")
  })

  test("in a folder that is write-only is its sender's alone: another learns nothing of it", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), noise(8 * MIB))
    const [one, other] = [new Uint8Array(16).fill(1), new Uint8Array(16).fill(2)]
    const service = { mayRead: false }
    await push([join(source, "file")], target, "", { ...breakAt(6 * MIB), service, caller: one })
    const [partial] = partialsIn(target)
    expect(partial).toBeDefined()
    // Whoever guesses what somebody else sends is asked for all of it.
    const guessed = await push([join(source, "file")], target, "", {
      ...breakAt(7 * MIB),
      service,
      caller: other,
    })
    expect(guessed.error?.message).toBe("the test broke it")
    expect(partialsIn(target).length).toBe(2)
    const own = await push([join(source, "file")], target, "", { service, caller: one })
    expect([own.error, own.reports[0]?.outcome]).toEqual([undefined, "resumed"])
    expect(partialsIn(target)).not.toContain(partial!)
    expect(differences(source, target)).not.toBe("")
  })

  test.each([
    ["a link to a file elsewhere", "ln -s"],
    ["a hard link to one", "ln"],
  ])("that is %s is put away, and that file stays as it is", async (_, command) => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), noise(3 * MIB))
    const victim = join(scratch.folder(`${count}`), "victim")
    writeFileSync(victim, noise(3 * MIB))
    const before = readFileSync(victim)
    await push([join(source, "file")], target, "", breakAt(2 * MIB))
    const partial = join(target, partialsIn(target)[0] ?? "")
    Bun.spawnSync(["sh", "-ec", `rm "$2"; ${command} "$1" "$2"`, "sh", victim, partial])
    expect((await push([join(source, "file")], target)).error).toBeUndefined()
    expect(readFileSync(victim)).toEqual(before)
    expect(differences(source, target)).toBe("")
  })

  test("is never offered by a source: one that lies there is another copy's", async () => {
    const { source, target } = places()
    writeFileSync(join(source, "file"), noise(3 * MIB))
    await push([join(source, "file")], target, "", breakAt(2 * MIB))
    const taken = await pull(target, [""], scratch.folder(`${count}/back`))
    expect([taken.error, taken.summary?.entries]).toEqual([undefined, 0])
    utimesSync(join(source, "file"), 1, 1)
  })
})
