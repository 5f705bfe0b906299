/**
 * @module test/integration/hostile-agent
 *
 * A relayed channel between an honest member and one whose agent tampers with what it passes on. The agent's link is
 * its own, so the MVM takes its frames: the honest command finds out.
 */

import { beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { noise } from "../guest/copy/trees.ts"
import { HANG_MS, MIB, hostForFile, type Running } from "./host.ts"

const TAMPERING = join(import.meta.dir, "tampering-agent.ts")
const PROGRAM = join(import.meta.dir, "../../src/main.ts")

const host = hostForFile({ members: ["honest", "other"] })

function out(name: string): string {
  return join(host().folder, name)
}

/** The agent of `evil`, changed in this way, until `use` is over. */
async function withAgent(tamper: string, use: () => Promise<void>): Promise<void> {
  const words = ["--preload", TAMPERING, PROGRAM, "guest", "agent", "--local", "evil", "--map", "none"]
  const agent = host().spawn(words, { program: process.execPath, env: { MVM_TEST_TAMPER: tamper } })
  try {
    await host().linked("evil")
    await host().must("measure", "learn", "evil")
    await use()
  } finally {
    agent.kill("SIGTERM")
    await agent.over()
  }
}

async function statuses(...commands: Running[]): Promise<number[]> {
  return Promise.all(commands.map((command) => command.over()))
}

beforeAll(async () => {
  await host().must("vm", "create", "evil", "--local")
}, HANG_MS)

test("an agent that changes nothing passes on what its command sends", async () => {
  await withAgent("none", async () => {
    const sent = noise(2 * MIB)
    const receiver = await host().recv("honest", out("none"), "evil")
    expect(await statuses(host().send("evil", "honest", sent), receiver)).toEqual([0, 0])
    expect(Buffer.compare(readFileSync(out("none")), sent)).toBe(0)
  })
})

describe("an agent that tampers with what its command sends", () => {
  test.each(["drop", "replay", "swap", "flip", "forge", "flood"])(
    "(%s) gets none of that released",
    async (tamper) => {
      await withAgent(tamper, async () => {
        const sent = noise(2 * MIB)
        const receiver = await host().recv("honest", out(tamper), "evil")
        const sender = host().send("evil", "honest", sent)
        const [received, gave] = await statuses(receiver, sender)
        const got = existsSync(out(tamper)) ? readFileSync(out(tamper)) : Buffer.alloc(0)
        expect([received, receiver.stderr()]).toEqual([5, expect.stringContaining("mvm: ")])
        expect(gave).not.toBe(0)
        expect(got.length).toBeLessThan(sent.length)
        expect(Buffer.compare(got, sent.subarray(0, got.length))).toBe(0)
        // Others go on.
        const next = await host().recv("other", out("next"), "honest")
        expect(await statuses(host().send("honest", "other", noise(1000)), next)).toEqual([0, 0])
      })
      await host().free()
    },
  )
})

test("an agent that claims to have taken what was never sent ends its channel with status 5 at the sender", async () => {
  await withAgent("overtake", async () => {
    const receiver = await host().recv("evil", out("overtaken"), "honest")
    const sender = host().send("honest", "evil", noise(2 * MIB))
    const [gave] = await statuses(sender, receiver)
    expect([gave, sender.stderr()]).toEqual([5, expect.stringContaining("took more than was sent")])
  })
  await host().free()
})
