/**
 * @module test/integration/deposit-death
 *
 * Deposits under processes that die: at every moment there is all of one, or nothing of it.
 */

import { describe, expect, test } from "bun:test"
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { hostForFile, rule, type Running } from "./host.ts"

const MIB = 1 << 20
const host = hostForFile({ members: ["a", "b", "bare"], agents: { bare: ["--map", "none"] } })

const ALLOW = rule('service = "*"', 'from = "*"', 'to = "*"', "deposit = true")
const CONTENT = noise(6 * MIB + 1)

function noise(lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  for (let at = 0; at < lengthBytes; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536))
  return bytes
}

function out(name: string): string {
  return join(host().folder, name)
}

function waiting(): Promise<{ id: string; bytes: number; storedBytes: number; state: string }[]> {
  return host().ask("deposit.list")
}

function files(): string[] {
  return readdirSync(join(host().state, "deposits")).sort()
}

function leave(from: string, file: string): Running {
  return host().spawn(["guest", "deposit", "--local", from, "b", file])
}

function take(...words: string[]): Running {
  return host().spawn(["guest", "recv", "--deposited", "--local", "b", ...words], { stdout: out("stdout") })
}

/** Every deposit that is listed is whole, and there is nothing else. */
async function nothingHalf(): Promise<number> {
  // What a dead command had under way is dropped when its agent says so.
  await host().until("only whole deposits", async () => {
    const keys = (await waiting()).map(({ id }) => id).sort()
    return JSON.stringify(files()) === JSON.stringify(keys)
  })
  const kept = await waiting()
  for (const { bytes } of kept) expect(bytes).toBe(CONTENT.length)
  return kept.length
}

async function begun(leaving: Running): Promise<void> {
  await host().until("a part of the deposit", () => {
    return leaving.process.exitCode !== null || files().some((name) => name.endsWith(".part"))
  })
}

/** Takes everything that waits; each is what was left. */
async function takeAll(count: number): Promise<void> {
  for (let index = 0; index < count; index += 1) {
    const taking = take("--output", out("taken"))
    expect([await taking.over(), taking.stderr()]).toEqual([0, expect.any(String)])
    expect(readFileSync(out("taken")).equals(Buffer.from(CONTENT))).toBe(true)
  }
  expect(await waiting()).toEqual([])
  expect(files()).toEqual([])
}

async function prepared(): Promise<string> {
  await host().policy(ALLOW, "a", "b", "allow")
  return host().file("content", CONTENT)
}

describe("a deposit survives", () => {
  test.each(["SIGTERM", "SIGKILL"] as const)("%s and a new start of the MVM", async (signal) => {
    const file = await prepared()
    expect(await leave("a", file).over()).toBe(0)
    await host().stopServe(signal)
    await host().serve()
    await Promise.all(["a", "b"].map((name) => host().linked(name)))
    await takeAll(await nothingHalf())
  })

  test("the death of both agents", async () => {
    const file = await prepared()
    expect(await leave("a", file).over()).toBe(0)
    for (const name of ["a", "b"]) {
      host().agentOf(name).kill("SIGKILL")
      await host().agentOf(name).over()
      await host().agent(name)
    }
    await takeAll(await nothingHalf())
  })

  test("the end of both members, one of which is never there while it is left", async () => {
    const file = await prepared()
    await host().must("vm", "stop", "b")
    await host().agentOf("b").over()
    expect(await leave("a", file).over()).toBe(0)
    await host().must("vm", "stop", "a")
    await host().agentOf("a").over()
    await host().agent("b")
    await takeAll(1)
    await host().agent("a")
  })
})

describe("a collector that waits", () => {
  test.each(["the MVM", "its agent"])("goes on waiting when %s begins anew", async (who) => {
    const file = await prepared()
    const taking = take("--wait", "60s", "--output", out("awaited"))
    await Bun.sleep(1500)
    if (who === "the MVM") {
      await host().stopServe("SIGTERM")
      await Bun.sleep(1500)
      await host().serve()
      await Promise.all(["a", "b"].map((name) => host().linked(name)))
    } else {
      host().agentOf("b").kill("SIGTERM")
      await host().agentOf("b").over()
      await Bun.sleep(1500)
      await host().agent("b")
    }
    expect([taking.process.exitCode, taking.stderr()]).toEqual([null, ""])
    expect(await leave("a", file).over()).toBe(0)
    expect([await taking.over(), taking.stderr()]).toEqual([0, expect.stringContaining("the hash agrees")])
    expect(readFileSync(out("awaited")).equals(Buffer.from(CONTENT))).toBe(true)
  })
})

describe("there is all of a deposit or nothing", () => {
  test.each(["a", "bare"])(
    "when the command of %s is killed at any moment",
    async (from) => {
      const file = await prepared()
      for (let round = 0; round < 10; round += 1) {
        const leaving = leave(from, file)
        // Every other one once the MVM has a part of it.
        if (round % 2 === 1) await begun(leaving)
        await Bun.sleep(Math.random() * (round % 2 === 1 ? 60 : 400))
        leaving.kill("SIGKILL")
        const status = await leaving.over()
        const kept = await nothingHalf()
        if (status === 0) expect(kept).toBe(1)
        await takeAll(kept)
      }
      await host().free()
    },
    60_000,
  )

  test("when the agent is killed at any moment", async () => {
    const file = await prepared()
    for (let round = 0; round < 4; round += 1) {
      const leaving = leave("a", file)
      await begun(leaving)
      await Bun.sleep(Math.random() * 60)
      host().agentOf("a").kill("SIGKILL")
      await host().agentOf("a").over()
      const status = await leaving.over()
      const kept = await nothingHalf()
      expect(status === 0 ? kept : 1).toBe(1)
      await takeAll(kept)
      await host().agent("a")
    }
    await host().free()
  }, 60_000)

  test("when the MVM is killed at any moment, and the depositor knows which", async () => {
    const file = await prepared()
    for (let round = 0; round < 5; round += 1) {
      const leaving = leave("a", file)
      await begun(leaving)
      await Bun.sleep(Math.random() * 100)
      await host().stopServe("SIGKILL")
      await host().serve()
      const status = await leaving.over()
      await Promise.all(["a", "b"].map((name) => host().linked(name)))
      const kept = await nothingHalf()
      expect([status === 0, leaving.stderr()]).toEqual([kept === 1, expect.any(String)])
      await takeAll(kept)
    }
  }, 60_000)
})

describe("a collector that is killed", () => {
  test("at any moment has the whole file or none, and what it has not comes again", async () => {
    const file = await prepared()
    for (let round = 0; round < 8; round += 1) {
      expect(await leave("a", file).over()).toBe(0)
      rmSync(out("killed"), { force: true })
      const taking = take("--output", out("killed"))
      await Bun.sleep(Math.random() * 400)
      taking.kill("SIGKILL")
      await taking.over()
      const has = existsSync(out("killed"))
      if (has) expect(readFileSync(out("killed")).equals(Buffer.from(CONTENT))).toBe(true)
      const kept = await nothingHalf()
      // A file that is there may come again, under the same name with the same content.
      if (!has) expect(kept).toBe(1)
      await takeAll(kept)
    }
    // What a death left hidden beside it goes with the next one.
    expect(await leave("a", file).over()).toBe(0)
    expect(await take("--output", out("killed")).over()).toBe(0)
    expect(readdirSync(host().folder).filter((name) => name.startsWith(".mvm-part-"))).toEqual([])
  }, 60_000)

  test("after its first byte left for a pipe gets nothing twice, unless it says that it may", async () => {
    const file = await prepared()
    expect(await leave("a", file).over()).toBe(0)
    const [{ id } = { id: "" }] = await waiting()
    const taking = host().spawn(["guest", "recv", "--deposited", "--local", "b"], { stdout: "pipe" })
    const reader = (taking.process.stdout as ReadableStream<Uint8Array>).getReader()
    expect((await reader.read()).value?.length).toBeGreaterThan(0)
    taking.kill("SIGKILL")
    await taking.over()
    const next = await host().run("guest", "recv", "--deposited", "--local", "b")
    expect([next.status, next.stdout]).toEqual([3, ""])
    expect(next.stderr).toContain(`deposit ${id} of a was begun before, and nobody knows more`)
    // Neither does a new life of the agent, or of the MVM, forget it.
    host().agentOf("b").kill("SIGKILL")
    await host().agentOf("b").over()
    await host().agent("b")
    expect(await take().over()).toBe(3)
    const again = take("--again", id, "--output", out("again"))
    expect([await again.over(), again.stderr()]).toEqual([0, expect.any(String)])
    expect(readFileSync(out("again")).equals(Buffer.from(CONTENT))).toBe(true)
    expect(await waiting()).toEqual([])
  })

  test("whose memory of it is lost gets nothing twice either", async () => {
    const file = await prepared()
    expect(await leave("a", file).over()).toBe(0)
    const [{ id } = { id: "" }] = await waiting()
    const taking = host().spawn(["guest", "recv", "--deposited", "--local", "b"], { stdout: "pipe" })
    const reader = (taking.process.stdout as ReadableStream<Uint8Array>).getReader()
    await reader.read()
    taking.kill("SIGKILL")
    await taking.over()
    host().agentOf("b").kill("SIGKILL")
    await host().agentOf("b").over()
    for (const name of readdirSync(join(host().state, "vms"))) {
      rmSync(join(host().state, "vms", name, "delivered"), { force: true })
    }
    await host().agent("b")
    const next = take()
    expect([await next.over(), next.stderr()]).toEqual([3, expect.stringContaining("nobody knows more")])
    await host().must("deposit", "rm", id)
  })
})

test("a receipt that no MVM hears is told to its next life, and the content does not come again", async () => {
  const file = await prepared()
  expect(await leave("a", file).over()).toBe(0)
  const taking = host().spawn(["guest", "recv", "--deposited", "--local", "b"], { stdout: "pipe" })
  const reader = (taking.process.stdout as ReadableStream<Uint8Array>).getReader()
  let length = (await reader.read()).value?.length ?? 0
  await host().stopServe("SIGKILL")
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    length += part.value.length
    if (length === CONTENT.length) break
  }
  expect(length).toBe(CONTENT.length)
  await host().serve()
  expect([await taking.over(), taking.stderr()]).toEqual([0, expect.stringContaining("the hash agrees")])
  await Promise.all(["a", "b"].map((name) => host().linked(name)))
  expect(await waiting()).toEqual([])
  expect((await host().audit("deposit_receipt")).at(-1)).toMatchObject({ source: "a", target: "b" })
  expect(await host().must("audit", "verify")).toContain("chain and signatures hold")
})
