/**
 * @module test/terminal/status
 *
 * `mvm status --watch` in a real terminal.
 */

import { describe, expect, test } from "bun:test"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { hostForFile } from "../integration/host.ts"
import { coloursIn, inOrder, terminalOf } from "./terminals.ts"

const host = hostForFile({ members: ["a", "b"] })

describe("mvm status --watch", () => {
  test("shows what changes in place, and leaves the terminal as it was", async () => {
    const terminal = await terminalOf(host(), { columns: 120 })
    await terminal.run("echo before")
    await terminal.type("mvm status --watch 100ms")
    await terminal.shows(/^mvm serve, pid \d+[^]*2 VMs, 0 channels[^]*\na +running +up +trusted/)
    expect(await terminal.cursor()).toMatchObject({ alternate: true, shown: false })
    const receiver = await host().recv("b", undefined)
    const sender = host().send("a", "b", "pipe")
    await terminal.shows(/2 VMs, 1 channel\n[^]*\n[0-9a-f]{12} +open +a +b +default +\w+ +\d+s/)
    await (sender.process.stdin as Bun.FileSink).end()
    expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
    await terminal.shows("2 VMs, 0 channels")
    expect(await terminal.interrupt()).toBe(130)
    await inOrder(terminal)
    expect(await terminal.screen()).toContain("\nbefore\n")
    expect(await terminal.screen()).not.toContain("mvm serve, pid")
    expect(coloursIn(terminal.raw())).toEqual([])
  })

  test("never clears what it draws over, so that nothing flickers", async () => {
    const terminal = await terminalOf(host())
    await terminal.type("mvm status --watch 100ms")
    await terminal.until("some frames", () => terminal.raw().split("\u001b[H").length > 6)
    await terminal.press("C-c")
    await terminal.ended()
    const frames = terminal.raw().split("\u001b[H").slice(2, 5)
    for (const frame of frames) {
      // Each line is written over the old one, and only what is left of that is cleared.
      expect(frame).toMatch(/^mvm serve, pid [^]*\u001b\[K\u001b\[J$/)
      expect(frame.slice(0, -3)).not.toContain("\u001b[J")
      expect(frame).not.toContain("\u001b[2J")
    }
  })

  test("follows the window, and cuts to it", async () => {
    const terminal = await terminalOf(host(), { columns: 100, rows: 24 })
    await terminal.type("mvm status --watch 10m")
    await terminal.shows(/\nb +running/)
    await terminal.resize(20, 6)
    const screen = await terminal.shows(/\.\.\. \d more/)
    const lines = screen.trimEnd().split("\n")
    expect(lines.length).toBe(6)
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(20)
    expect(lines[0]).toStartWith("mvm serve, pid ")
    await terminal.resize(100, 24)
    await terminal.shows(/\nb +running/)
    expect(await terminal.interrupt()).toBe(130)
  })

  test("goes on while the daemon is away", async () => {
    const terminal = await terminalOf(host())
    await terminal.type("mvm status --watch 100ms")
    await terminal.shows(/\nb +running/)
    await host().stopServe()
    await terminal.shows("waiting for it to come back")
    await host().serve()
    await terminal.shows(/\nb +running/)
    expect(await terminal.interrupt()).toBe(130)
    await host().linked("a")
    await host().linked("b")
  })

  test("is interrupted while it waits for a daemon that does not answer", async () => {
    const state = join(host().folder, "deaf")
    mkdirSync(state)
    const listener = Bun.listen({ unix: join(state, "control.sock"), socket: { data() {} } })
    try {
      const terminal = await terminalOf(host())
      await terminal.type(`mvm status --watch --state ${state}`)
      await terminal.until("the watch", async () => (await terminal.cursor()).alternate)
      expect(await terminal.interrupt()).toBe(130)
      await inOrder(terminal)
    } finally {
      listener.stop(true)
    }
  })

  test("is interrupted at any moment, and the terminal is as it was", async () => {
    const terminal = await terminalOf(host())
    const modes = await terminal.modes()
    for (let moment = 0; moment < 8; moment += 1) {
      await terminal.type("mvm status --watch 100ms")
      await terminal.begun()
      await Bun.sleep(moment * 30)
      expect(await terminal.interrupt()).toBe(130)
      await inOrder(terminal)
    }
    expect(await terminal.modes()).toBe(modes)
  }, 60_000)
})
