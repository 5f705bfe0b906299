/** `mvm guest serve` and `mvm guest connect` between two local endpoints. */

import { beforeAll, describe, expect, test } from "bun:test"
import { createHash, randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { MIB, hostForFile, type Outcome } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

function connect(service: string, stdin?: Uint8Array, ...words: string[]): Promise<Outcome> {
  return host().runWith({ stdin }, "guest", "connect", `b:${service}`, "--local", "a", ...words)
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex")
}

beforeAll(async () => {
  await host().serves("b", "echo", "--", "/bin/cat")
})

describe("a connection to a command", () => {
  test("carries what is sent to it and what comes back, and both directions have their receipt", async () => {
    const before = (await host().audit("receipt")).length
    const { status, stdout, stderr } = await connect(
      "echo",
      new TextEncoder().encode("there and back"),
      "--json",
    )
    expect([status, stdout]).toEqual([0, "there and back"])
    expect(JSON.parse(stderr)).toMatchObject({ peer: "b", service: "echo", sentBytes: 14, receivedBytes: 14 })
    expect((await host().audit("receipt")).length).toBe(before + 2)
  })

  test("carries 32 MiB both ways at once as they were, content hashed as well", async () => {
    const bytes = randomBytes(32 * MIB)
    const out = join(host().folder, "large")
    const input = host().file("large.in", bytes)
    const running = host().spawn(["guest", "connect", "b:echo", "--local", "a", "--digest", "sha256"], {
      stdin: Bun.file(input) as unknown as number,
      stdout: out,
    })
    expect([await running.over(), running.stderr()]).toEqual([0, ""])
    expect(digestOf(readFileSync(out))).toBe(digestOf(bytes))
  })

  test("ends with its service, though nothing more comes from its input", async () => {
    await host().serves("b", "brief", "--", "/bin/echo", "all of it")
    const out = join(host().folder, "brief.out")
    const running = host().spawn(["guest", "connect", "b:brief", "--local", "a"], {
      stdin: "pipe",
      stdout: out,
    })
    expect([await running.over(), running.stderr()]).toEqual([0, ""])
    expect(readFileSync(out, "utf8")).toBe("all of it\n")
  })

  test("many at once all find the service", async () => {
    const all = await Promise.all(
      Array.from({ length: 12 }, (_, index) => connect("echo", new TextEncoder().encode(`number ${index}`))),
    )
    expect(all.map(({ status, stdout, stderr }) => [status, stdout, stderr])).toEqual(
      Array.from({ length: 12 }, (_, index) => [0, `number ${index}`, ""]),
    )
  })

  test("gives the command the caller's facts", async () => {
    await host().serves("b", "facts", "--", "/usr/bin/env")
    const { stdout } = await connect("facts")
    const facts = Object.fromEntries(
      stdout.split("\n").flatMap((line) => (line.startsWith("MVM_") ? [line.split("=", 2)] : [])),
    ) as Record<string, string>
    expect(facts).toEqual({
      MVM_PEER: "a",
      MVM_PEER_PROGRAM: host().mvm,
      MVM_PEER_VERDICT: "trusted",
      MVM_SERVICE: "facts",
      MVM_ARG: "",
    })
  })

  test("to a service that nobody serves fails with status 3", async () => {
    const { status, stderr } = await connect("nobody")
    expect([status, stderr]).toEqual([3, expect.stringContaining("nobody on b serves service nobody")])
  })
})
