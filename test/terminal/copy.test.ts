/**
 * @module test/terminal/copy
 *
 * cp and deposit in a real terminal.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { differences, manyFiles, noise } from "../guest/copy/trees.ts"
import { MIB, hostForFile, rule, type Running } from "../integration/host.ts"
import { coloursIn, inOrder, nothingLeft, terminalOf } from "./terminals.ts"

let service: Running | undefined
// Before the host's own end.
afterAll(async () => {
  service?.kill("SIGTERM")
  await service?.over()
}, 30_000)
const host = hostForFile({ members: ["a", "b"] })

beforeAll(async () => {
  const shown = join(host().folder, "shown")
  mkdirSync(shown)
  service = host().spawn(["guest", "serve", "--copy", shown, "--local", "b"])
  await service.says("serving cp")
  mkdirSync(join(host().folder, "tree"))
  writeFileSync(join(host().folder, "tree/large"), noise(160 * MIB))
  manyFiles(join(host().folder, "tree"), 300)
}, 60_000)

describe("a copy's progress", () => {
  test("is a bar with rate and time left, in place, that gives way to the outcome", async () => {
    const terminal = await terminalOf(host(), { columns: 110 })
    await terminal.type("mvm guest cp -r tree b:one --local a")
    await terminal.shows(/\[#*-+\] {2}\d+ % {2}.*iB {2}.*\/s {2}.* left {2}tree\//)
    expect(await terminal.ended()).toBe(0)
    const screen = await terminal.screen()
    expect(screen).toMatch(/\nmvm: 301 files, 16\d\.\d MiB; 16\d\.\d MiB sent in /)
    expect(screen).not.toContain(" %")
    expect(coloursIn(terminal.raw())).toEqual([])
    await inOrder(terminal)
    expect(await terminal.run("mvm guest cp -r tree b:one --local a")).toBe(0)
    await terminal.shows(/; 0 B sent in .*; 305 of 305 were there already/)
    expect(differences(join(host().folder, "tree"), join(host().folder, "shown/one/tree"))).toBe("")
  })

  test("stays on one line of a window of 20 columns", async () => {
    const terminal = await terminalOf(host(), { columns: 20, rows: 12 })
    await terminal.type("mvm guest cp tree/large b:two --local a")
    await terminal.shows(/\d+ %/)
    for (const line of (await terminal.screen()).split("\n")) expect(line.length).toBeLessThanOrEqual(20)
    expect(await terminal.ended()).toBe(0)
    await inOrder(terminal)
  })

  test("is lines in a file, and events where a program reads, which may leave", async () => {
    const terminal = await terminalOf(host())
    expect(
      await terminal.run("mvm guest cp -r tree b:three --local a 2>said; grep -c '^mvm: tree/' said"),
    ).toBe(0)
    await terminal.shows("301")
    await terminal.run("mvm guest cp -r tree b:three --local a --json | head -1")
    await terminal.shows('"event":"begin"')
    await nothingLeft(host(), "a")
  })
})

describe("Ctrl-C", () => {
  test("ends a copy, and the same command takes it up again", async () => {
    const terminal = await terminalOf(host(), { columns: 110 })
    await terminal.type("mvm guest cp tree/large b:four --local a")
    await terminal.shows(/\d+ %/)
    await terminal.press("C-c")
    expect(await terminal.ended()).toBe(130)
    await nothingLeft(host(), "a")
    const target = join(host().folder, "shown/four")
    const left = readdirSync(target)
    expect(left.filter((name) => !name.startsWith(".mvm-part-"))).toEqual([])
    expect(await terminal.run("mvm guest cp tree/large b:four --local a")).toBe(0)
    expect(readdirSync(target)).toEqual(["large"])
    await inOrder(terminal)
  })

  test("ends a deposit, and nothing of it is kept", async () => {
    await host().policy(rule('service = "*"', 'from = "*"', 'to = "*"', "deposit = true"), "a", "b", "allow")
    const terminal = await terminalOf(host())
    await terminal.type("(head -c 5M /dev/zero; sleep 60) | mvm guest deposit b --local a")
    await terminal.shows(/for b: .* MiB/)
    await terminal.press("C-c")
    expect(await terminal.ended()).toBe(130)
    await nothingLeft(host(), "a")
    expect(await host().ask<unknown[]>("deposit.list")).toEqual([])
    expect(readdirSync(join(host().state, "deposits"))).toEqual([])
  })
})
