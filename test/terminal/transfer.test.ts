/**
 * @module test/terminal/transfer
 *
 * send and recv in a real terminal.
 */

import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { MIB, hostForFile, rule, type Running } from "../integration/host.ts"
import type { Terminal } from "../cli/tmux.ts"
import { coloursIn, inOrder, nothingLeft, terminalOf } from "./terminals.ts"

const host = hostForFile({ members: ["a", "b"] })

/** More than rings and pipes hold: a sender stands still when nobody reads at the other end. */
const LARGE = 64 * MIB

function large(): string {
  return host().file("large", new Uint8Array(LARGE))
}

/** A receiver whose output nobody reads yet. */
function stuck(): Promise<Running> {
  return host().recv("b", "pipe")
}

async function drain(receiver: Running): Promise<number> {
  const output = receiver.process.stdout as ReadableStream<Uint8Array>
  let bytes = 0
  for await (const chunk of output) bytes += chunk.length
  return bytes
}

/** Every line on the screen fits beside the cursor, so nothing was wrapped. */
async function unwrapped(terminal: Terminal, columns: number): Promise<void> {
  const lines = (await terminal.screen()).split("\n").filter((line) => /%|iB/.test(line))
  expect(lines.length).toBeGreaterThan(0)
  for (const line of lines) expect(line.length).toBeLessThan(columns)
}

describe("a sender's progress", () => {
  test("is one line that goes on in place and gives way to the outcome", async () => {
    const [receiver, terminal] = await Promise.all([stuck(), terminalOf(host())])
    await terminal.type(`mvm guest send b ${large()} --local a`)
    await terminal.shows(/to b: \d+ %, .* MiB, .*\/s/)
    expect(await drain(receiver)).toBe(LARGE)
    expect(await terminal.ended()).toBe(0)
    const screen = await terminal.screen()
    expect(screen).toMatch(/\nmvm: to b: 64\.0 MiB in .*, b is trusted .*digests agree/)
    expect(screen).not.toContain(" %,")
    await inOrder(terminal)
    expect(await receiver.over()).toBe(0)
  })

  test("stays on one line of a window of 20 columns, and of one that becomes narrow", async () => {
    const [receiver, terminal] = await Promise.all([stuck(), terminalOf(host(), { columns: 20, rows: 12 })])
    await terminal.type(`mvm guest send b large --local a`)
    await terminal.shows(/to b: \d+ %/)
    await unwrapped(terminal, 20)
    await terminal.resize(12, 12)
    await drain(receiver)
    expect(await terminal.ended()).toBe(0)
    expect(await receiver.over()).toBe(0)
  })

  test("has no colours, with NO_COLOR and without, and is nowhere but on a terminal", async () => {
    for (const NO_COLOR of [undefined, "1"]) {
      const receiver = await stuck()
      const terminal = await terminalOf(host(), { env: { NO_COLOR } })
      await terminal.type(`mvm guest send b large --local a 2>said; cat said`)
      await drain(receiver)
      expect(await terminal.ended()).toBe(0)
      expect(coloursIn(terminal.raw())).toEqual([])
      expect(await terminal.history()).not.toContain(" %")
      expect(await receiver.over()).toBe(0)
    }
  })
})

test("a receiver's progress is shown while its output goes elsewhere", async () => {
  const terminal = await terminalOf(host())
  await terminal.type("mvm guest recv a --local b >received")
  await terminal.shows("waiting for a, service default")
  const sender = host().send("a", "b", "pipe")
  const input = sender.process.stdin as Bun.FileSink
  input.write(new Uint8Array(8 * MIB))
  await input.flush()
  await terminal.shows(/from a: .* MiB, .*\/s/)
  await input.end()
  expect(await terminal.ended()).toBe(0)
  expect(await terminal.screen()).toContain("from a: 8.00 MiB in")
  expect(await sender.over()).toBe(0)
  await inOrder(terminal)
})

describe("control characters of a peer", () => {
  const hostile = "a\u001b[31mb\u001b]0;title\u0007c\td\u009b2Je\n"

  test.each([
    ["recv", "send"],
    ["recv --verify-first", "send"],
    ["recv --deposited --wait 20s", "deposit"],
  ])("are shown as text by %s", async (command, verb) => {
    await host().policy(rule('service = "*"', 'from = "*"', 'to = "*"', "deposit = true"), "a", "b", "allow")
    const terminal = await terminalOf(host(), { columns: 100 })
    await terminal.type(`mvm guest ${command} --local b`)
    await terminal.shows("waiting for")
    const stdin = Buffer.from(hostile)
    const { status } = await host().runWith({ stdin }, "guest", verb, "--local", "a", "b")
    expect([status, await terminal.ended()]).toEqual([0, 0])
    expect(await terminal.screen()).toMatch(/a\\u001b\[31mb\\u001b\]0;title\\u0007c +d\\u009b2Je/)
    expect(terminal.raw()).not.toContain("\u001b[31m")
  })

  test("are passed on with --raw, and where the output is no terminal", async () => {
    const terminal = await terminalOf(host())
    for (const words of ["--raw", "| cat"]) {
      await terminal.type(`mvm guest recv --local b ${words}`)
      await terminal.shows("waiting for")
      const sender = await host().runWith(
        { stdin: Buffer.from("<\u001b[31mred>") },
        "guest",
        "send",
        "--local",
        "a",
        "b",
      )
      expect(sender).toMatchObject({ status: 0 })
      expect(await terminal.ended()).toBe(0)
      await terminal.type("clear")
      expect(await terminal.ended()).toBe(0)
    }
    expect(terminal.raw().split("<\u001b[31mred>").length).toBe(3)
  })
})

describe("Ctrl-C", () => {
  test("ends a sender that waits for a receiver, and its request", async () => {
    const terminal = await terminalOf(host())
    await terminal.type("mvm guest send b large --local a --wait")
    await terminal.shows("waiting for a receiver on b, service default")
    expect(await terminal.interrupt()).toBe(130)
    await nothingLeft(host(), "a", "b")
    // Nobody takes what a later receiver waits for.
    const receiver = await host().recv("b", undefined)
    receiver.kill("SIGINT")
    expect(await receiver.over()).toBe(130)
  })

  test("ends a receiver that waits, and its offer", async () => {
    const terminal = await terminalOf(host())
    await terminal.type("mvm guest recv --local b")
    await terminal.shows("waiting for anybody")
    expect(await terminal.interrupt()).toBe(130)
    await nothingLeft(host(), "a", "b")
    const { status, stderr } = await host().run("guest", "send", "--local", "a", "b", "large")
    expect([status, stderr]).toEqual([3, expect.stringContaining("nobody on b waits for")])
  })

  test("ends a sender in the middle, and its receiver hears of it", async () => {
    const [receiver, terminal] = await Promise.all([stuck(), terminalOf(host())])
    await terminal.type(`mvm guest send b large --local a`)
    await terminal.shows(/to b: \d+ %/)
    expect(await terminal.interrupt()).toBe(130)
    await drain(receiver)
    expect(await receiver.over()).toBe(3)
    await nothingLeft(host(), "a", "b")
    await inOrder(terminal)
  })

  test("ends a receiver in the middle, and its sender does not say that it was delivered", async () => {
    const terminal = await terminalOf(host())
    await terminal.type("mvm guest recv --local b >/dev/null")
    await terminal.shows("waiting for anybody")
    const sender = host().send("a", "b", "pipe")
    const input = sender.process.stdin as Bun.FileSink
    input.write(new Uint8Array(8 * MIB))
    await input.flush()
    await terminal.shows(/from anybody: .* MiB/)
    expect(await terminal.interrupt()).toBe(130)
    expect(await sender.over()).toBe(3)
    await nothingLeft(host(), "a", "b")
    await inOrder(terminal)
  })

  test("at any moment leaves nothing behind", async () => {
    const terminal = await terminalOf(host())
    const statuses: number[] = []
    for (let moment = 0; moment < 12; moment += 1) {
      const receiver = await host().recv("b", undefined)
      await terminal.type(`mvm guest send b large --local a`)
      await terminal.begun()
      // From before the program has started to after it has sent everything.
      await Bun.sleep(moment * 25)
      const status = await terminal.interrupt()
      statuses.push(status)
      // A sender that never came to ask leaves the receiver waiting.
      if (status !== 0) receiver.kill("SIGINT")
      expect([0, 3, 130]).toContain(await receiver.over())
      await nothingLeft(host(), "a", "b")
    }
    for (const status of statuses) expect([0, 130]).toContain(status)
    expect(statuses[0]).toBe(130)
    await inOrder(terminal)
  }, 120_000)
})

describe("a reader that leaves", () => {
  test("ends the receiver with status 1, and the sender learns that it was not delivered", async () => {
    const terminal = await terminalOf(host())
    await terminal.type('mvm guest recv --local b | head -c1 >/dev/null; echo "${PIPESTATUS[0]}"')
    await terminal.shows("waiting for anybody")
    const { status } = await host().run("guest", "send", "--local", "a", "b", "large")
    expect(status).toBe(3)
    expect(await terminal.ended()).toBe(0)
    expect(await terminal.screen()).toMatch(/cannot write the output: EPIPE[^]*\n1\n/)
    await nothingLeft(host(), "a", "b")
  })

  test.each(["status", "vm list", "audit list", "channel list", "audit export", "vm show a", "--help"])(
    "of mvm %s makes it neither complain nor hang",
    async (words) => {
      const terminal = await terminalOf(host())
      const status = await terminal.run(`(mvm ${words}; echo $? >status) 2>said | head -c1 >/dev/null`)
      const said = readFileSync(join(host().folder, "said"), "utf8")
      expect([status, said.replace(/^mvm: (none|verify with.*)\n/, "")]).toEqual([0, ""])
      // What fits the pipe is written before the reader has left.
      expect(readFileSync(join(host().folder, "status"), "utf8")).toMatch(/^[01]\n$/)
    },
  )
})
