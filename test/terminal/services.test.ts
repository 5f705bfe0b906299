/**
 * @module test/terminal/services
 *
 * exec and forward in a real terminal.
 */

import { beforeAll, describe, expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { hostForFile } from "../integration/host.ts"
import { inOrder, nothingLeft, terminalOf } from "./terminals.ts"

const host = hostForFile({ members: ["a", "b"] })
beforeAll(async () => {
  await host().serves("b", "shell", "--pty", "--", "/bin/sh", "-c", "PS1='in> ' exec sh -i")
  await host().serves("b", "echo", "--", "/bin/cat")
}, 60_000)

/** Services stay; what their callers had is gone. */
async function callsOver(): Promise<void> {
  await host().until("the calls to be over", async () => (await host().status()).channels === 0)
  await nothingLeft(host(), "a")
}

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
    // The shell drops what was typed before it heard of the signal.
    await terminal.shows(/\^C\s*in>/)
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

describe("connect", () => {
  test.each(["a command", "a socket"])(
    "to %s ends with it, and the next key is the shell's",
    async (kind) => {
      const server = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: { data() {}, open: (socket) => void socket.end("all of it\n") },
      })
      const name = kind === "a command" ? "brief" : "brief-socket"
      const how =
        kind === "a command" ? ["--", "/bin/echo", "all of it"] : ["--tcp", `127.0.0.1:${server.port}`]
      await host().serves("b", name, ...how)
      const terminal = await terminalOf(host())
      const modes = await terminal.modes()
      await terminal.type(`mvm guest connect b:${name} --local a`)
      expect(await terminal.ended()).toBe(0)
      expect(await terminal.screen()).toContain("\nall of it\n")
      expect(await terminal.run("echo $((6*7)) | grep -x 42")).toBe(0)
      expect(await terminal.modes()).toBe(modes)
      await callsOver()
      server.stop(true)
    },
  )
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
    expect(await terminal.interrupt()).toBe(130)
    await closed.promise
    expect(existsSync(socket)).toBe(false)
    await inOrder(terminal)
    await callsOver()
  })
})
