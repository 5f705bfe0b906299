/**
 * @module test/e2e/terminal
 *
 * What an operator does with one VM at a terminal: start it and watch, use its console, and reach it from the host.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { join } from "node:path"
import { Terminal } from "../cli/tmux.ts"
import { Managed, until } from "./managed.ts"

let mvm: Managed
let terminal: Terminal

beforeAll(async () => {
  mvm = await Managed.start()
  await mvm.vm("web")
  terminal = await Terminal.open({ columns: 90, cwd: mvm.state, env: { MVM_STATE: mvm.state } })
}, 120_000)
afterAll(async () => {
  await terminal?.close()
  await mvm?.stop()
}, 60_000)

/** Waits as long as a VM may take. */
async function shows(text: string | RegExp): Promise<void> {
  await until(String(text), async () => {
    const screen = await terminal.screen()
    return typeof text === "string" ? screen.includes(text) : text.test(screen)
  })
}

test("a start that is watched shows what it waits for, and goes on when nobody watches any more", async () => {
  await terminal.type("./kept-mvm vm wait web")
  await terminal.shows(/waiting for the agent of web, \d+ s/)
  expect(await terminal.interrupt()).toBe(130)
  await terminal.type("./kept-mvm vm wait web --timeout 3m")
  await shows(/the agent of web is linked after|\n\$ $/)
  expect(await terminal.ended()).toBe(0)
}, 200_000)

test("the console is the VM's: its keys, its Ctrl-C; Ctrl-] leaves it, and the terminal is as it was", async () => {
  const modes = await terminal.modes()
  await terminal.type("./kept-mvm vm console web")
  await terminal.shows("Ctrl-] leaves")
  await until("a prompt", async () => {
    await terminal.press("Enter")
    return /\n[^\n]*# ?\n?$/.test(await terminal.screen())
  })
  await terminal.write("echo $((6*7)); sleep 1000")
  await terminal.press("Enter")
  await shows(/\n42\n/)
  await terminal.press("C-c")
  await terminal.write("echo back")
  await terminal.press("Enter")
  await shows(/\nback\n/)
  await terminal.press("C-]")
  expect(await terminal.ended()).toBe(0)
  expect(await terminal.screen()).toContain("mvm: left the console")
  expect(await terminal.modes()).toBe(modes)
}, 120_000)

test("the host reaches the VM and the VM the host, each by what they run", async () => {
  await mvm.must("measure", "learn", "host")
  await mvm.learn("web")
  await mvm.allow("host web", "web host")
  // The agent answers once it knows its own program: emulated, that takes a while to hash.
  await until("the agent of web", async () => (await mvm.run("ping", "web")).status === 0)
  const ping = await mvm.must("ping", "web", "--count", "2", "--interval", "10ms")
  expect(ping).toMatch(/^web is trusted \(memory, \w+\): [\d.]+ ms: policy [\d.]+, own quote/)
  const web = await mvm.console("web")
  expect(await web.must("mvm guest peers")).toMatch(/\nhost +up +trusted/)
  expect(await web.must("mvm guest ping host")).toMatch(/^host is trusted \(memory, \w+\)/)
  expect((await web.run("mvm guest ping web")).status).toBe(6)
  const received = web.run("mvm guest recv host --quiet")
  await until("the receiver", async () => {
    const { status } = await mvm.run("send", "web", join(mvm.state, "policy.toml"), "--quiet")
    return status === 0
  })
  expect((await received).output).toContain('from = "host"')
  await mvm.must("vm", "stop", "host")
}, 180_000)
