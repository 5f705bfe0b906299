/**
 * @module test/integration/death
 *
 * Processes that die at the worst moment: the other end hears of it, the memory is free again, and the next
 * transfer works.
 */

import { afterEach, describe, expect, test } from "bun:test"
import { existsSync, statSync } from "node:fs"
import { join } from "node:path"
import { hostForFile, type Running } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })
const BLOCK = crypto.getRandomValues(new Uint8Array(100_000))

function out(name: string): string {
  return join(host().folder, name)
}

/** A transfer that has begun and never ends by itself. */
async function running(): Promise<{ sender: Running; receiver: Running }> {
  const receiver = await host().recv("b", out("endless"))
  const sender = host().send("a", "b", "pipe")
  const stdin = sender.process.stdin as Bun.FileSink
  stdin.write(BLOCK)
  await stdin.flush()
  await host().until("the first bytes", () => existsSync(out("endless")) && statSync(out("endless")).size > 0)
  return { sender, receiver }
}

async function oneTransfer(): Promise<void> {
  const receiver = await host().recv("b", out("one"))
  const sender = host().send("a", "b", BLOCK)
  expect([await sender.over(), await receiver.over(), sender.stderr(), receiver.stderr()]).toEqual([
    0,
    0,
    expect.anything(),
    expect.anything(),
  ])
  expect(statSync(out("one")).size).toBe(BLOCK.length)
}

afterEach(async () => {
  await host().free()
  await oneTransfer()
  await host().free()
  expect(await host().must("audit", "verify")).toContain("chain and signatures hold")
})

describe("the other end gets status 3", () => {
  test.each(["SIGKILL", "SIGINT", "SIGTERM"] as const)("when the sender gets %s", async (signal) => {
    const { sender, receiver } = await running()
    sender.kill(signal)
    expect([await sender.over(), await receiver.over()]).toEqual([
      { SIGKILL: 137, SIGINT: 130, SIGTERM: 143 }[signal],
      3,
    ])
    expect(receiver.stderr()).toContain("a gave up: the command ended")
  })

  test.each(["SIGKILL", "SIGINT", "SIGTERM"] as const)("when the receiver gets %s", async (signal) => {
    const { sender, receiver } = await running()
    receiver.kill(signal)
    expect([await receiver.over(), await sender.over()]).toEqual([
      { SIGKILL: 137, SIGINT: 130, SIGTERM: 143 }[signal],
      3,
    ])
    expect(sender.stderr()).toContain("b gave up: the command ended")
  })

  test.each(["a", "b"])("when the agent of %s dies, and so does its own command", async (name) => {
    const { sender, receiver } = await running()
    host().agentOf(name).kill("SIGKILL")
    expect([await sender.over(), await receiver.over()]).toEqual([3, 3])
    const [own, other] = name === "a" ? [sender, receiver] : [receiver, sender]
    expect(own.stderr()).toContain("the agent went away")
    expect(other.stderr()).toContain(`the agent of ${name} went away`)
    await host().free()
    await host().agent(name)
  })

  test("when an agent is told to end", async () => {
    const { sender, receiver } = await running()
    host().agentOf("b").kill("SIGTERM")
    expect(await host().agentOf("b").over()).toBe(0)
    expect([await sender.over(), await receiver.over()]).toEqual([3, 3])
    await host().agent("b")
  })

  test.each(["a", "b"])("when the vTPM of %s dies; its agent begins anew by itself", async (name) => {
    const { sender, receiver } = await running()
    const { vtpmPid } = await host().ask<{ vtpmPid: number }>("vm.show", { name })
    process.kill(vtpmPid, "SIGKILL")
    expect([await sender.over(), await receiver.over()]).toEqual([3, 3])
    await host().until("a new vTPM", async () => {
      const shown = await host().ask<{ vtpmPid: number | null; link: string }>("vm.show", { name })
      return shown.vtpmPid !== null && shown.vtpmPid !== vtpmPid && shown.link === "up"
    })
    await host().linked(name)
  })
})

describe("a death while a channel is opened", () => {
  const moments = [0, 10, 20, 25, 30, 35, 40, 50, 70]
  test.each(moments)("of the sender after %d ms leaves a receiver that ended or still waits", async (ms) => {
    const receiver = await host().recv("b", out("moment"))
    const sender = host().send("a", "b", BLOCK)
    await Bun.sleep(ms)
    sender.kill("SIGKILL")
    await sender.over()
    const early = await Promise.race([receiver.process.exited, Bun.sleep(300).then(() => undefined)])
    if (early !== undefined) return expect([0, 3]).toContain(early)
    const again = host().send("a", "b", BLOCK, "--wait", "10s")
    expect([await again.over(), await receiver.over()]).toEqual([0, 0])
  })

  test.each(moments)("of the receiver after %d ms ends the sender", async (ms) => {
    const receiver = await host().recv("b", out("moment"))
    const sender = host().send("a", "b", BLOCK)
    await Bun.sleep(ms)
    receiver.kill("SIGKILL")
    await receiver.over()
    const status = await sender.over()
    expect(status === 0 || status === 3 || sender.stderr()).toBe(true)
  })

  test("of the receiver's agent ends the sender", async () => {
    const receiver = await host().recv("b", out("moment"))
    const sender = host().send("a", "b", BLOCK)
    await Bun.sleep(30)
    host().agentOf("b").kill("SIGKILL")
    expect([0, 3]).toContain(await sender.over())
    expect([0, 3]).toContain(await receiver.over())
    await host().agent("b")
  })
})

describe("a command that waits", () => {
  test("ends at once with SIGINT, and what it waited for is withdrawn", async () => {
    const receiver = await host().recv("b", out("waiting"))
    const sender = host().send("a", "b", BLOCK, "--wait", "1h", "--service", "none")
    await Bun.sleep(100)
    for (const command of [receiver, sender]) {
      command.kill("SIGINT")
      expect(await command.over()).toBe(130)
    }
    await host().until("the offer to be gone", async () => {
      const { status, stderr } = await host().run("guest", "send", "--local", "a", "b")
      return status === 3 && stderr.includes("nobody on b waits")
    })
  })
})
