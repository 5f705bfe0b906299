/** @module test/terminal/tmux */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { Terminal } from "../cli/tmux.ts"

let terminal: Terminal

beforeAll(async () => {
  terminal = await Terminal.open({ columns: 40, rows: 10 })
}, 60_000)
afterAll(() => terminal.close(), 60_000)

test("a terminal shows what a command wrote and tells its status", async () => {
  expect(await terminal.run("printf '%s-%s\\n' a b; (exit 7)")).toBe(7)
  expect(await terminal.screen()).toContain("\na-b\n")
  expect((await terminal.cursor()).alternate).toBe(false)
})

test("Ctrl-C reaches the command alone", async () => {
  await terminal.type("sleep 1000")
  await terminal.begun()
  await terminal.press("C-c")
  expect(await terminal.ended()).toBe(130)
  expect(await terminal.run("true")).toBe(0)
})

test("a command sees the size of the window, and its changes", async () => {
  await terminal.resize(20, 6)
  expect(await terminal.run("stty size")).toBe(0)
  expect(await terminal.screen()).toContain("6 20")
})
