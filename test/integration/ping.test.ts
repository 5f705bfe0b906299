/**
 * @module test/integration/ping
 *
 * Who may be reached, and how long it takes: from one agent to another, without any command that waits there.
 */

import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { hostForFile, rule } from "./host.ts"

const host = hostForFile({ members: ["a", "b", "c"] })

interface PeerView {
  name: string
  linked: boolean
  verdict: string
  services: { name: string; role: string }[]
}

function peers(name: string): Promise<PeerView[]> {
  return host().json<PeerView[]>("guest", "peers", "--local", name)
}

function ping(...words: string[]): ReturnType<ReturnType<typeof host>["run"]> {
  return host().run("guest", "ping", "--local", "a", ...words)
}

describe("mvm guest peers", () => {
  test("lists who may be reached, whether they are trusted, and what waits there", async () => {
    const receiver = await host().recv("b", undefined, "--service", "nightly")
    expect(await peers("a")).toEqual([
      { name: "b", linked: true, verdict: "trusted", services: [{ name: "nightly", role: "receive" }] },
      { name: "c", linked: true, verdict: "trusted", services: [] },
    ])
    const table = await host().must("guest", "peers", "--local", "a")
    expect(table).toMatch(
      /^NAME +LINK +VERDICT +SERVICES\nb +up +trusted +nightly \(receives\)\nc +up +trusted\n$/,
    )
    receiver.kill("SIGINT")
    await receiver.over()
  })

  test("names nobody else", async () => {
    await host().policy(rule('service = "*"', 'from = "a"', 'to = "b"'), "a", "c", "deny")
    expect((await peers("a")).map(({ name }) => name)).toEqual(["b"])
    expect(await peers("b")).toEqual([])
    const { status, stdout, stderr } = await host().run("guest", "peers", "--local", "c")
    expect([status, stdout, stderr]).toEqual([0, "", "mvm: none\n"])
    await host().policy(rule('service = "*"', 'from = "*"', 'to = "*"'), "a", "c", "allow")
  })
})

describe("mvm guest ping", () => {
  const STAGES = ["policy", "ownQuote", "appraisal", "peerQuote", "grant", "firstByte"]

  test("is answered by the agent, with the time of each step, and leaves nothing", async () => {
    const { status, stdout } = await ping("b", "--json")
    expect(status).toBe(0)
    const { milliseconds, ...facts } = JSON.parse(stdout) as { milliseconds: Record<string, number> }
    expect(facts).toMatchObject({
      number: 1,
      target: "b",
      peer: "b",
      peerVerdict: "trusted",
      peerMeasurement: "agent",
    })
    expect(Object.keys(milliseconds)).toEqual([...STAGES, "total"])
    for (const stage of STAGES) {
      expect(milliseconds[stage]).toBeGreaterThan(0)
      expect(milliseconds[stage]).toBeLessThan(milliseconds["total"]!)
    }
    await host().free()
    for (const name of ["a", "b"]) {
      const { offers, channels } = await host().json<{ offers: string[]; channels: number }>(
        "guest",
        "status",
        "--local",
        name,
      )
      expect([offers, channels]).toEqual([[], 0])
    }
    // The grant is on paper, as of any channel; nothing was broken off.
    expect((await host().audit("grant")).at(-1)).toMatchObject({
      asker: "a",
      answerer: "b",
      service: "mvm.ping",
    })
    expect(await host().audit("abort")).toEqual([])
  })

  test("may be repeated, and sums up", async () => {
    const { status, stdout, stderr } = await ping("b", "--count", "4", "--interval", "10ms")
    expect([status, stderr]).toEqual([0, "mvm: 4 of 4 answered\n"])
    const lines = stdout.trimEnd().split("\n")
    expect(
      lines.slice(0, 4).every((line) => /^b is trusted \(memory, \w+\): [\d.]+ ms: policy/.test(line)),
    ).toBe(true)
    expect(lines.slice(4).map((line) => line.split("  ")[0])).toEqual([
      "STEP, MS",
      "policy",
      "own quote",
      "appraisal",
      "peer's quote",
      "grant",
      "first byte",
      "total",
    ])
  })

  test("sums up what it saw when it is interrupted", async () => {
    const pinging = host().spawn(
      ["guest", "ping", "--local", "a", "b", "--count", "1000000", "--interval", "20ms"],
      { stdout: join(host().folder, "pings") },
    )
    const lines = (): string[] => readFileSync(join(host().folder, "pings"), "utf8").split("\n")
    await host().until("some answers", () => lines().length > 3)
    pinging.kill("SIGINT")
    expect(await pinging.over()).toBe(130)
    expect(pinging.stderr()).toMatch(/^mvm: \d+ of \d+ answered\n$/)
    expect(lines().some((line) => line.startsWith("total "))).toBe(true)
    await host().free()
  })

  test("of many at once are all answered", async () => {
    const answers = await Promise.all(
      Array.from({ length: 6 }, () => ping("b", "--count", "2", "--interval", "1ms")),
    )
    const answered = answers.map(({ stderr }) => /(\d) of 2 answered/.exec(stderr)?.[1])
    expect([answers.map(({ status }) => status), answered]).toEqual([Array(6).fill(0), Array(6).fill("2")])
    await host().free()
  })

  test("is denied where the policy denies it, by the name that it has", async () => {
    await host().policy(rule('service = "default"', 'from = "*"', 'to = "*"'), "a", "b", "allow")
    expect(await ping("b")).toMatchObject({ status: 6, stderr: expect.stringContaining("denies it") })
    await host().policy(rule('service = "mvm.ping"', 'from = "*"', 'to = "*"'), "a", "b", "deny")
    expect(await ping("b")).toMatchObject({ status: 0 })
    await host().policy(rule('service = "*"', 'from = "*"', 'to = "*"'), "a", "b", "allow")
  })

  test("says why there was no answer, and goes on with the next", async () => {
    expect(await ping("nobody")).toMatchObject({ status: 3, stderr: "mvm: there is no VM nobody\n" })
    const { status, stdout } = await ping("nobody", "--count", "2", "--interval", "1ms", "--json")
    expect(status).toBe(3)
    const lines = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as unknown)
    expect(lines).toMatchObject([
      { number: 1, error: "no_target" },
      { number: 2, error: "no_target" },
    ])
    host().agentOf("c").kill("SIGTERM")
    await host().agentOf("c").over()
    await host().until("c to be away", async () =>
      (await host().status()).vms.some((vm) => vm.link === "down"),
    )
    expect(await ping("c")).toMatchObject({
      status: 3,
      stderr: expect.stringContaining("c has no agent connected"),
    })
    await host().agent("c")
    expect(await ping("c")).toMatchObject({ status: 0 })
  })

  test("finds out that the other end is not trusted", async () => {
    await host().must("measure", "remove", "c", "--all")
    const { status, stderr } = await ping("c")
    expect([status, stderr]).toEqual([4, expect.stringContaining("the other end's software is not trusted")])
    expect((await peers("a")).find(({ name }) => name === "c")?.verdict).not.toBe("trusted")
    await host().must("measure", "learn", "c")
    expect(await ping("c")).toMatchObject({ status: 0 })
  })

  test("is the agent's alone to answer", async () => {
    const { status, stderr } = await host().run("guest", "recv", "--local", "b", "--service", "mvm.ping")
    expect([status, stderr]).toEqual([
      6,
      expect.stringContaining("service mvm.ping: the agent answers it itself"),
    ])
    const other = await host().run("guest", "recv", "--local", "b", "--service", "mvm.other")
    expect(other.status).toBe(6)
  })
})
