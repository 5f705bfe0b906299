/**
 * @module test/integration/deposit
 *
 * Content that is left for a member that is not there, through the real programs.
 */

import { describe, expect, test } from "bun:test"
import { readFileSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { hostForFile, rule } from "./host.ts"

const MIB = 1 << 20
const host = hostForFile({
  members: ["a", "b", "c"],
  serve: ["--deposits-vm", "8M", "--deposits", "12M"],
})

const ALLOW_DEPOSITS = rule('service = "*"', 'from = "*"', 'to = "*"', "deposit = true")

interface Waiting {
  id: string
  state: string
  source: string
  target: string
  service: string
  bytes: number
}

function noise(lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  for (let at = 0; at < lengthBytes; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536))
  return bytes
}

async function allow(text = ALLOW_DEPOSITS): Promise<void> {
  await host().policy(text, "a", "b", "allow")
}

function deposit(from: string, to: string, content: Uint8Array, ...words: string[]) {
  return host().runWith({ stdin: content }, "guest", "deposit", "--local", from, to, ...words)
}

function collect(name: string, ...words: string[]) {
  return host().run("guest", "recv", "--deposited", "--local", name, ...words)
}

function waiting(): Promise<Waiting[]> {
  return host().ask<Waiting[]>("deposit.list")
}

/** Nothing waits, and nothing of what did is left on the disk. */
async function nothingLeft(): Promise<void> {
  expect(await waiting()).toEqual([])
  expect(readdirSync(join(host().state, "deposits"))).toEqual([])
}

async function throwAway(): Promise<void> {
  for (const { id } of await waiting()) await host().must("deposit", "rm", id)
  await nothingLeft()
}

describe("a deposit", () => {
  const sizes = [0, 1, 131_048, 131_049, 3 * MIB + 7]
  test.each(sizes)("of %d bytes waits for its target, and comes as it was", async (length) => {
    await allow()
    const content = noise(length)
    expect(await deposit("a", "b", content)).toMatchObject({ status: 0 })
    expect(await waiting()).toMatchObject([
      { state: "waiting", source: "a", target: "b", service: "default", bytes: length },
    ])
    const out = join(host().folder, `out-${length}`)
    expect(await collect("b", "--output", out)).toMatchObject({ status: 0 })
    expect(readFileSync(out).equals(Buffer.from(content))).toBe(true)
    await nothingLeft()
    expect((await host().audit("deposit_receipt")).length).toBeGreaterThan(0)
  })

  test("is completed by its id, at its target and by the operator", async () => {
    await allow()
    expect((await deposit("a", "b", Buffer.from("x"))).status).toBe(0)
    const [{ id } = { id: "" }] = await waiting()
    const complete = (...words: string[]) => host().must("__complete", "--", ...words)
    expect(await complete("deposit", "rm", "")).toContain(id.slice(0, 12))
    expect(await complete("guest", "recv", "--deposited", "--local", "b", "--again", "")).toContain(id)
    await throwAway()
  })

  test("goes to standard output as well, and nothing comes twice", async () => {
    await allow()
    expect((await deposit("a", "b", Buffer.from("hello"))).status).toBe(0)
    expect(await collect("b")).toMatchObject({ status: 0, stdout: "hello" })
    const again = await collect("b")
    expect([again.status, again.stdout]).toEqual([3, ""])
    expect(again.stderr).toContain("no deposit waits here, service default")
  })

  test("is told apart by service and source, and they come oldest first", async () => {
    await allow()
    for (const [from, text, service] of [
      ["a", "one", "default"],
      ["c", "two", "default"],
      ["a", "three", "nightly"],
      ["a", "four", "default"],
    ] as const) {
      expect((await deposit(from, "b", Buffer.from(text), "--service", service)).status).toBe(0)
    }
    const status = JSON.parse(await host().must("guest", "status", "--local", "b", "--json")) as {
      deposits: { source: string; service: string }[]
    }
    expect(status.deposits.map(({ source, service }) => `${source} ${service}`)).toEqual([
      "a default",
      "c default",
      "a nightly",
      "a default",
    ])
    expect(await host().must("status")).toMatch(/^b .* 4$/m)
    expect((await collect("b", "--service", "nightly")).stdout).toBe("three")
    expect((await collect("b", "c")).stdout).toBe("two")
    expect((await collect("b", "--keep")).stdout).toBe("onefour")
    await nothingLeft()
  })

  test("is given to one of those that collect at once, and the next to another", async () => {
    await allow()
    const contents = [noise(4 * MIB), noise(3 * MIB)]
    for (const content of contents) expect((await deposit("a", "b", content)).status).toBe(0)
    const outs = Array.from({ length: 6 }, (_, index) => join(host().folder, `at-once-${index}`))
    const outcomes = await Promise.all(outs.map((out) => collect("b", "--output", out)))
    const got = outs.filter((_, index) => outcomes[index]?.status === 0).map((out) => readFileSync(out))
    expect(got.map(({ length }) => length).sort()).toEqual([3 * MIB, 4 * MIB])
    for (const content of contents) expect(got.some((bytes) => bytes.equals(content))).toBe(true)
    for (const { status } of outcomes) expect([0, 3]).toContain(status)
    await nothingLeft()
  })

  test("that is being taken is not taken once more at the same time", async () => {
    await allow()
    expect((await deposit("a", "b", noise(6 * MIB))).status).toBe(0)
    const [{ id } = { id: "" }] = await waiting()
    const first = host().spawn(["guest", "recv", "--deposited", "--local", "b"], { stdout: "pipe" })
    const output = (first.process.stdout as ReadableStream<Uint8Array>).getReader()
    // More is to come than a pipe holds: from its first bytes on it is in the middle of it.
    let length = (await output.read()).value?.length ?? 0
    first.kill("SIGSTOP")
    const again = await collect("b", "--again", id)
    expect([again.status, again.stderr]).toEqual([3, expect.stringContaining("is being taken by another")])
    const other = await collect("b")
    expect([other.status, other.stdout]).toEqual([3, ""])
    first.kill("SIGCONT")
    for (let next = await output.read(); !next.done; next = await output.read()) length += next.value.length
    expect([await first.over(), length]).toEqual([0, 6 * MIB])
    await nothingLeft()
  })

  test("is waited for", async () => {
    await allow()
    const receiver = host().spawn(["guest", "recv", "--deposited", "--local", "b", "--wait", "20s"], {
      stdout: "pipe",
    })
    const output = new Response(receiver.process.stdout as ReadableStream).text()
    expect((await deposit("a", "b", Buffer.from("late"))).status).toBe(0)
    expect([await receiver.over(), await output]).toEqual([0, "late"])
  })

  test("says at both ends in JSON what it was", async () => {
    await allow()
    const left = await deposit("a", "b", Buffer.from("facts"), "--json")
    const { deposit: id } = JSON.parse(left.stderr) as { deposit: string }
    expect(JSON.parse(left.stderr)).toMatchObject({ target: "b", service: "default", bytes: 5 })
    const taken = await collect("b", "--json")
    expect(JSON.parse(taken.stderr)).toMatchObject({
      deposit: id,
      peer: "a",
      peerVerdict: "trusted",
      peerMeasurement: "agent",
      rule: "policy.toml:1",
      bytes: 5,
    })
    const rows = await host().audit("deposit_receipt")
    expect(rows.at(-1)).toMatchObject({ deposit: id, source: "a", target: "b", bytes: 5 })
  })
})

describe("the policy", () => {
  test("allows none unless a rule says so", async () => {
    await host().policy(rule('service = "*"', 'from = "*"', 'to = "*"'), "a", "b", "allow")
    const { status, stderr } = await deposit("a", "b", Buffer.from("x"))
    expect([status, stderr]).toEqual([6, expect.stringContaining("the policy of this host denies it")])
    const rows = await host().audit("refused")
    expect(rows.at(-1)).toMatchObject({ message: "deposit: policy.toml:1 allows no deposit" })
    await nothingLeft()
  })

  test("bounds its length, told to the depositor before it is sent", async () => {
    await allow(rule('service = "*"', 'from = "*"', 'to = "*"', "deposit = true", 'max_bytes = "1 MiB"'))
    const { status, stderr } = await deposit("a", "b", noise(MIB + 1))
    expect([status, stderr]).toEqual([6, expect.stringContaining("allows 1.00 MiB at a time")])
    expect((await deposit("a", "b", noise(MIB))).status).toBe(0)
    await throwAway()
  })

  test("as it is when it is collected decides, too", async () => {
    await allow()
    expect((await deposit("a", "b", Buffer.from("later"))).status).toBe(0)
    await host().policy(rule('service = "*"', 'from = "b"', 'to = "a"'), "a", "b", "deny")
    const denied = await collect("b")
    expect([denied.status, denied.stdout]).toEqual([6, ""])
    await allow()
    expect((await collect("b")).stdout).toBe("later")
  })
})

describe("what is kept", () => {
  test("is bounded, of one depositor and in all, and a refused one leaves nothing", async () => {
    await allow()
    expect((await deposit("a", "b", noise(7 * MIB))).status).toBe(0)
    const own = await deposit("a", "b", noise(2 * MIB))
    expect([own.status, own.stderr]).toEqual([
      6,
      expect.stringContaining("the host keeps at most 8.00 MiB of deposits of a"),
    ])
    expect((await deposit("c", "b", noise(4 * MIB))).status).toBe(0)
    const all = await deposit("c", "b", noise(2 * MIB))
    expect([all.status, all.stderr]).toEqual([
      6,
      expect.stringContaining("the host keeps at most 12.0 MiB of deposits"),
    ])
    expect(await waiting()).toMatchObject([{ source: "a" }, { source: "c" }])
    expect(readdirSync(join(host().state, "deposits")).length).toBe(2)
    await throwAway()
  })

  test("goes when it expires", async () => {
    await allow()
    expect((await deposit("a", "b", Buffer.from("x"), "--expires", "1s")).status).toBe(0)
    await host().until("the deposit to expire", async () => (await waiting()).length === 0)
    await host().until("its file to go", () => readdirSync(join(host().state, "deposits")).length === 0)
    expect((await collect("b")).status).toBe(3)
    const rows = await host().audit("deposit_remove")
    expect(rows.at(-1)).toMatchObject({ reason: "expired", source: "a", target: "b" })
  })

  test("is for some time: --expires 0 is wrong usage, not for as long as may be", async () => {
    await allow()
    for (const time of ["0", "0s"]) {
      const { status, stderr } = await deposit("a", "b", Buffer.from("x"), "--expires", time)
      expect([status, stderr]).toEqual([
        2,
        expect.stringContaining("--expires: a deposit is kept for some time"),
      ])
    }
    await nothingLeft()
  })

  test("goes when the operator says so, by a part of its id", async () => {
    await allow()
    expect((await deposit("a", "b", Buffer.from("x"))).status).toBe(0)
    const [{ id } = { id: "" }] = await waiting()
    expect(await host().must("deposit", "list")).toContain(id)
    const unknown = await host().run("deposit", "rm", "f".repeat(32))
    expect([unknown.status, unknown.stderr]).toEqual([2, expect.stringContaining("no deposit ffff")])
    await host().must("deposit", "rm", id.slice(0, 8))
    await nothingLeft()
  })

  test("is nobody's but its target's, and is not readable where it lies", async () => {
    await allow()
    const secret = "a secret that nobody should find"
    expect((await deposit("a", "b", Buffer.from(secret.repeat(1000)))).status).toBe(0)
    const [{ id } = { id: "" }] = await waiting()
    const stranger = await collect("c", "--again", id)
    expect([stranger.status, stranger.stdout]).toEqual([3, ""])
    expect(stranger.stderr).toContain("there is no such deposit for this VM")
    const { exitCode } = Bun.spawnSync(["grep", "-rqa", secret, host().state])
    expect(exitCode).toBe(1)
    await throwAway()
  })
})

test("what was left for a member that was removed goes with it", async () => {
  await allow()
  await host().must("vm", "create", "gone", "--local")
  expect((await deposit("a", "gone", Buffer.from("x"))).status).toBe(0)
  await host().must("vm", "rm", "gone")
  await host().until("its deposits to go", async () => (await waiting()).length === 0)
  await nothingLeft()
  const missing = await deposit("a", "nobody", Buffer.from("x"))
  expect(missing.status).toBe(3)
})
