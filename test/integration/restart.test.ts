/**
 * @module test/integration/restart
 *
 * The MVM goes and comes back under running agents and channels.
 */

import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { MIB, hostForFile, type Running } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

function out(name: string): string {
  return join(host().folder, name)
}

async function relinked(): Promise<void> {
  await Promise.all([host().linked("a"), host().linked("b")])
}

/** A transfer in its middle: 1 MiB of it has arrived. */
async function halfway(name: string): Promise<{
  sender: Running
  receiver: Running
  /** Sends the second MiB and the end; the digest of all. */
  finish(): Promise<string>
}> {
  const receiver = await host().recv("b", out(name))
  const sender = host().send("a", "b", "pipe")
  const stdin = sender.process.stdin as Bun.FileSink
  const block = crypto.getRandomValues(new Uint8Array(65_536))
  const hash = createHash("sha256")
  const put = async (): Promise<void> => {
    for (let count = 0; count < MIB / block.length; count += 1) {
      hash.update(block)
      stdin.write(block)
      await stdin.flush()
    }
  }
  await put()
  await host().until("the first half", () => existsSync(out(name)) && Bun.file(out(name)).size === MIB)
  return {
    sender,
    receiver,
    finish: async () => {
      await put()
      await stdin.end()
      return hash.digest("hex")
    },
  }
}

function digestOf(name: string): string {
  return createHash("sha256")
    .update(readFileSync(out(name)))
    .digest("hex")
}

async function statuses(...commands: Running[]): Promise<unknown[]> {
  const over = await Promise.all(commands.map((command) => command.over()))
  return over.map((status, index) => (status === 0 ? 0 : [status, commands[index]?.stderr()]))
}

async function oneTransfer(): Promise<void> {
  const receiver = await host().recv("b", out("one"))
  const sender = host().send("a", "b", new Uint8Array(1000))
  expect(await statuses(sender, receiver)).toEqual([0, 0])
}

describe.each(["SIGTERM", "SIGKILL"] as const)("after %s and a new start, the MVM", (signal) => {
  test("finds its endpoints, which link again by themselves, still trusted", async () => {
    const { vms } = await host().status()
    const status = await host().stopServe(signal)
    expect(status).toBe(signal === "SIGTERM" ? 0 : 137)
    const { status: sent, stderr } = await host().run("guest", "send", "--local", "a", "b")
    expect([sent, stderr]).toEqual([3, expect.stringContaining("no MVM answers")])
    await host().serve()
    await relinked()
    expect((await host().status()).vms.map(({ name, state }) => [name, state])).toEqual(
      vms.map(({ name, state }) => [name, state]),
    )
    await oneTransfer()
    await host().free()
    expect(await host().must("audit", "verify")).toContain("chain and signatures hold")
  })

  test("lets a channel that was open go on to its receipt", async () => {
    const { sender, receiver, finish } = await halfway("across")
    await host().stopServe(signal)
    await host().serve()
    await relinked()
    expect((await host().status()).channels).toBe(1)
    const digest = await finish()
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(digestOf("across")).toBe(digest)
    expect((await host().audit("receipt")).at(-1)).toMatchObject({ by: "b", peer: "a", lengthBytes: 2 * MIB })
    await host().free()
  })

  test("gives a channel its receipt that ended while no MVM was there", async () => {
    const { sender, receiver, finish } = await halfway("without")
    await host().stopServe(signal)
    const digest = await finish()
    await host().until("the second half", () => Bun.file(out("without")).size === 2 * MIB)
    await Bun.sleep(100)
    expect([sender.process.exitCode, receiver.process.exitCode]).toEqual([null, null])
    await host().serve()
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(digestOf("without")).toBe(digest)
    await host().free()
  })

  test("frees the region of a channel whose ends went meanwhile", async () => {
    const { sender, receiver } = await halfway("gone")
    await host().stopServe(signal)
    sender.kill("SIGKILL")
    await sender.over()
    await host().serve()
    await relinked()
    expect(await receiver.over()).toBe(3)
    await host().free()
    await oneTransfer()
  })

  test("knows an offer that waited through it", async () => {
    const receiver = await host().recv("b", out("offer"))
    await host().stopServe(signal)
    await host().serve()
    await relinked()
    expect(await statuses(host().send("a", "b", new Uint8Array(9), "--wait", "10s"), receiver)).toEqual([
      0, 0,
    ])
  })
})

describe("a send that waits", () => {
  test("goes on waiting through a restart of the MVM", async () => {
    const sender = host().send("a", "b", new Uint8Array(9), "--wait", "20s")
    await Bun.sleep(150)
    await host().stopServe()
    await host().serve()
    await relinked()
    const receiver = await host().recv("b", out("late"))
    expect(await statuses(sender, receiver)).toEqual([0, 0])
  })
})

describe("an agent without an MVM", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("waits for one, and ends with %s meanwhile", async (signal) => {
    const agent = host().spawn(["guest", "agent", "--local", "a", "--state", join(host().folder, "none")])
    await Bun.sleep(300)
    expect(agent.process.exitCode).toBe(null)
    agent.kill(signal)
    expect(await agent.over()).toBe(0)
  })
})
