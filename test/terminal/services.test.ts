/**
 * @module test/terminal/services
 *
 * cp, exec and forward in a real terminal.
 */

import { beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, readdirSync, statSync, truncateSync } from "node:fs"
import { basename, join } from "node:path"
import { hostForFile } from "../integration/host.ts"
import { coloursIn, inOrder, nothingLeft, terminalOf } from "./terminals.ts"

const host = hostForFile({ members: ["a", "b"] })
/** A hole: it takes half a minute to read, and no room. */
const LARGE = 64 * 2 ** 30

function there(): string {
  return join(host().folder, "there")
}

beforeAll(async () => {
  mkdirSync(there())
  truncateSync(host().file("large", ""), LARGE)
  await host().serves("b", "cp", "--copy", there())
  await host().serves("b", "shell", "--pty", "--", "/bin/sh", "-c", "PS1='in> ' exec sh -i")
  await host().serves("b", "echo", "--", "/bin/cat")
}, 60_000)

/** Files that are there and not whole; what a copy keeps to go on from has another name. */
function partial(): string[] {
  return readdirSync(there(), { recursive: true, encoding: "utf8" }).filter((path) => {
    const stat = statSync(join(there(), path))
    return stat.isFile() && !basename(path).startsWith(".") && stat.size !== LARGE
  })
}

/** Services stay; what their callers had is gone. */
async function callsOver(): Promise<void> {
  await host().until("the calls to be over", async () => (await host().status()).channels === 0)
  await nothingLeft(host(), "a")
}

describe("cp", () => {
  test("shows how far it is, and ends at Ctrl-C with nothing half done in sight", async () => {
    const terminal = await terminalOf(host(), { columns: 100 })
    await terminal.type("mvm guest cp large b: --local a")
    await terminal.shows(/\[#*-*\] {2}\d+ % {2}.*iB {2}.*\/s/)
    await terminal.press("C-c")
    expect(await terminal.ended()).toBe(130)
    await inOrder(terminal)
    expect(coloursIn(terminal.raw())).toEqual([])
    await callsOver()
    expect(partial()).toEqual([])
  })

  test("keeps to one line of a window of 20 columns", async () => {
    const terminal = await terminalOf(host(), { columns: 20, rows: 12 })
    await terminal.type("mvm guest cp large b:narrow --local a")
    const screen = await terminal.shows(/\d+ % {2}/)
    expect(screen.split("\n").filter((line) => /iB/.test(line)).length).toBeLessThanOrEqual(1)
    await terminal.press("C-c")
    expect(await terminal.ended()).toBe(130)
    await callsOver()
  })

  test("at any moment of it leaves no file that is not whole", async () => {
    const terminal = await terminalOf(host())
    for (let moment = 0; moment < 6; moment += 1) {
      await terminal.type(`mvm guest cp large b:at-${moment} --local a`)
      await terminal.begun()
      await Bun.sleep(moment * 100)
      await terminal.press("C-c")
      // A hole is copied fast.
      expect([0, 130]).toContain(await terminal.ended())
    }
    await callsOver()
    expect(partial()).toEqual([])
  }, 60_000)
})

describe("exec --pty", () => {
  test("is a terminal there: its keys, its size, its Ctrl-C and its status", async () => {
    const terminal = await terminalOf(host(), { columns: 70, rows: 20 })
    const modes = await terminal.modes()
    await terminal.type("mvm guest exec b shell --pty --local a")
    await terminal.shows("in>")
    await terminal.write("stty size; echo $((6*7))")
    await terminal.press("Enter")
    await terminal.shows(/\n20 70\n42\n/)
    await terminal.resize(50, 15)
    await terminal.write("stty size")
    await terminal.press("Enter")
    await terminal.shows(/\n15 50\n/)
    await terminal.write("sleep 1000")
    await terminal.press("Enter")
    await terminal.shows("sleep 1000")
    await terminal.press("C-c")
    await terminal.write("exit 7")
    await terminal.press("Enter")
    expect(await terminal.ended()).toBe(7)
    await terminal.resize(70, 20)
    expect(await terminal.modes()).toBe(modes)
    await callsOver()
  })

  test("leaves the terminal as it was when the other end is gone", async () => {
    const terminal = await terminalOf(host())
    const modes = await terminal.modes()
    const service = await host().serves(
      "b",
      "short",
      "--pty",
      "--",
      "/bin/sh",
      "-c",
      "echo here; exec sleep 1000",
    )
    await terminal.type("mvm guest exec b short --pty --local a")
    await terminal.shows("here")
    service.kill("SIGTERM")
    await service.over()
    expect([125, 143]).toContain(await terminal.ended())
    expect(await terminal.modes()).toBe(modes)
    await callsOver()
  })
})

describe("forward", () => {
  test("ends at Ctrl-C with a connection open, and lets go of its address", async () => {
    const terminal = await terminalOf(host(), { columns: 120 })
    const socket = join(host().folder, "f.sock")
    await terminal.type(`mvm guest forward ${socket} b:echo --local a`)
    await terminal.shows("is service echo of b")
    const closed = Promise.withResolvers<void>()
    const heard: string[] = []
    const client = await Bun.connect({
      unix: socket,
      socket: { data: (_socket, bytes) => void heard.push(bytes.toString()), close: () => closed.resolve() },
    })
    client.write("hello")
    await terminal.until("the echo", () => heard.join("") === "hello")
    await terminal.press("C-c")
    expect(await terminal.ended()).toBe(130)
    await closed.promise
    expect(existsSync(socket)).toBe(false)
    await inOrder(terminal)
    await callsOver()
  })
})
