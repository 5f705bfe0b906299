/**
 * @module test/integration/dedicated
 *
 * Memory of a channel's own between local endpoints: a file for the channel, made with it and gone with it.
 */

import { afterEach, describe, expect, test } from "bun:test"
import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { ALLOW_ALL, MIB, TestHost, hostForFile, rule, type Running } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

/** A transfer in its middle: its first bytes arrived, its input is open. */
async function underWay(on: TestHost, name: string): Promise<{ sender: Running; receiver: Running }> {
  const path = join(on.folder, name)
  const receiver = await on.recv("b", path, "--json")
  const sender = on.send("a", "b", "pipe", "--json")
  const stdin = sender.process.stdin as Bun.FileSink
  stdin.write(new Uint8Array(100_000).fill(7))
  await stdin.flush()
  await on.until("the first bytes", () => existsSync(path) && statSync(path).size === 100_000)
  return { sender, receiver }
}

async function finish({ sender, receiver }: { sender: Running; receiver: Running }): Promise<void> {
  await (sender.process.stdin as Bun.FileSink).end()
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
}

async function demand(isolation: string): Promise<void> {
  const text = rule('service = "*"', 'from = "*"', 'to = "*"', `isolation = "${isolation}"`)
  await host().policy(text, "a", "b", "allow")
}

describe("two local endpoints", () => {
  afterEach(() => host().policy(ALLOW_ALL, "a", "b", "allow"))

  test("have a file of their own, private and as long as the region, while the arena stays empty", async () => {
    const transfer = await underWay(host(), "own")
    const [path, ...more] = host().memoryFiles()
    expect(more).toEqual([])
    const { mode, size, uid } = statSync(path!)
    expect([mode & 0o777, uid, size]).toEqual([0o600, process.geteuid!(), 4096 + 2 * 4 * MIB])
    const { arena, dedicated } = await host().status()
    expect([arena.freeBytes, dedicated.used, dedicated.usedBytes]).toEqual([arena.sizeBytes, 1, size])
    const [channel] = await host().json<{ isolation: string }[]>("channel", "list")
    expect(channel?.isolation).toBe("dedicated")
    await finish(transfer)
    for (const { stderr } of [transfer.sender, transfer.receiver]) {
      expect(JSON.parse(stderr().trim().split("\n").at(-1)!)).toMatchObject({ isolation: "dedicated" })
    }
    await host().free()
    expect(host().memoryFiles()).toEqual([])
  })

  test("use the arena where the rule says so, and no file then", async () => {
    await demand("arena")
    const transfer = await underWay(host(), "arena")
    const { arena, dedicated } = await host().status()
    expect(arena.freeBytes).toBeLessThan(arena.sizeBytes)
    expect([dedicated.used, host().memoryFiles()]).toEqual([0, []])
    await finish(transfer)
    await host().free()
  })

  test("have each channel's file for that channel alone", async () => {
    const one = await underWay(host(), "one")
    const two = await underWay(host(), "two")
    expect(host().memoryFiles().length).toBe(2)
    await finish(one)
    await host().until("the first file to go", () => host().memoryFiles().length === 1)
    await finish(two)
    await host().free()
  })

  test.each(["SIGTERM", "SIGKILL"] as const)(
    "go on in it when the MVM gets %s and starts again",
    async (signal) => {
      await demand("dedicated")
      const transfer = await underWay(host(), `restart-${signal}`)
      const before = host().memoryFiles()
      await host().stopServe(signal)
      await host().serve()
      await Promise.all([host().linked("a"), host().linked("b")])
      expect(host().memoryFiles()).toEqual(before)
      expect((await host().status()).dedicated.used).toBe(1)
      await finish(transfer)
      await host().free()
      expect(host().memoryFiles()).toEqual([])
    },
  )

  test("leave nothing when they end while no MVM is there", async () => {
    const { sender, receiver } = await underWay(host(), "orphan")
    expect(host().memoryFiles().length).toBe(1)
    await host().stopServe("SIGKILL")
    for (const one of [sender, receiver, host().agentOf("a"), host().agentOf("b")]) one.kill("SIGKILL")
    await Promise.all([sender, receiver, host().agentOf("a"), host().agentOf("b")].map((one) => one.over()))
    await host().serve()
    await Promise.all([host().agent("a"), host().agent("b")])
    await host().free()
    expect(host().memoryFiles()).toEqual([])
  })
})

describe("where there is little of it", () => {
  test("a channel takes the arena instead, unless the rule demands memory of its own", async () => {
    const small = await TestHost.start({ members: ["a", "b"], serve: ["--dedicated", "100K"] })
    try {
      const transfer = await underWay(small, "small")
      expect((await small.status()).dedicated.used).toBe(0)
      await finish(transfer)
      const text = rule('service = "*"', 'from = "*"', 'to = "*"', 'isolation = "dedicated"')
      await small.policy(text, "a", "b", "allow")
      const receiver = await small.recv("b", undefined)
      const sender = small.send("a", "b", new Uint8Array(10))
      expect(await sender.over()).toBe(3)
      expect(sender.stderr()).toContain("no room for another channel in dedicated memory")
      receiver.kill("SIGTERM")
      await receiver.over()
    } finally {
      await small.end()
    }
  })
})

test("what an end has of it is the ring and nothing in clear", async () => {
  const transfer = await underWay(host(), "sealed")
  const memory = readFileSync(host().memoryFiles()[0]!)
  expect(memory.includes(Buffer.alloc(24, 7))).toBe(false)
  expect(memory.subarray(4096).some((byte) => byte !== 0)).toBe(true)
  await finish(transfer)
  await host().free()
})
