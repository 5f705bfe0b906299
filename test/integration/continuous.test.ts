/**
 * @module test/integration/continuous
 *
 * A channel goes on only while both ends are what they were, and the policy and the operator let it.
 */

import { afterEach, describe, expect, test } from "bun:test"
import { appendFileSync, copyFileSync, existsSync, mkdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { ALLOW_ALL, hostForFile, rule, type Running } from "./host.ts"

const host = hostForFile({ members: ["a", "b"], remeasure: "1s" })
const SECOND = 1000

function out(name: string): string {
  return join(host().folder, name)
}

/** A transfer that has begun and would go on for ever. */
async function running(): Promise<{ sender: Running; receiver: Running }> {
  const receiver = await host().recv("b", out("endless"))
  const sender = host().send("a", "b", "pipe")
  const stdin = sender.process.stdin as Bun.FileSink
  stdin.write(new Uint8Array(1000))
  await stdin.flush()
  await host().until("the first bytes", () => existsSync(out("endless")) && statSync(out("endless")).size > 0)
  return { sender, receiver }
}

async function revoked(commands: { sender: Running; receiver: Running }, why: string): Promise<void> {
  const { sender, receiver } = commands
  expect([await sender.over(), await receiver.over()]).toEqual([7, 7])
  expect(sender.stderr()).toContain(why)
  expect(receiver.stderr()).toContain(why)
  await host().free()
}

/** The program with one byte more: it works, and it is another program. */
function changed(name: string): string {
  mkdirSync(out(name), { recursive: true })
  const path = out(`${name}/mvm`)
  copyFileSync(host().mvm, path)
  appendFileSync(path, "\n")
  return path
}

afterEach(async () => {
  const receiver = await host().recv("b", out("after"))
  const sender = host().send("a", "b", new Uint8Array(10))
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
  await host().free()
})

describe("a running channel ends with status 7 at both ends", () => {
  test.each(["a", "b"])("when %s runs a program that was not learnt, within its period", async (name) => {
    const commands = await running()
    const program = changed(`changed-${name}`)
    await host().runWith({ program }, "guest", "status", "--local", name)
    const began = performance.now()
    await revoked(commands, `the software of ${name} is no longer trusted`)
    expect(performance.now() - began).toBeLessThan(5 * SECOND)
    // It stays so, it is named, and an approval ends it.
    const sent = await host().run("guest", "send", "--local", "a", "b")
    expect(sent.status).toBe(name === "a" ? 4 : 3)
    const explained = await host().run("measure", "explain", name)
    expect([explained.status, explained.stdout]).toEqual([4, expect.stringContaining(program)])
    const shown = JSON.parse((await host().run("measure", "explain", name, "--json")).stdout) as object
    expect(shown).toMatchObject({ vm: name, verdict: "untrusted", code: "untrusted" })
    const approved = await host().must("measure", "approve", name, program, "--reason", "a test")
    expect(approved).toContain(program)
    expect((await host().run("measure", "explain", name)).status).toBe(0)
  })

  test("when the policy no longer allows it", async () => {
    const commands = await running()
    await host().policy(rule('service = "other"', 'from = "*"', 'to = "*"'), "a", "b", "deny")
    await revoked(commands, "the policy no longer allows this channel")
    await host().policy(ALLOW_ALL, "a", "b", "allow")
  })

  test("when the policy is broken", async () => {
    const commands = await running()
    await host().policy("[[rule", "a", "b", "deny")
    await revoked(commands, "the policy no longer allows this channel")
    await host().policy(ALLOW_ALL, "a", "b", "allow")
  })

  test("when the operator closes it", async () => {
    const commands = await running()
    const [channel] = await host().json<{ id: string }[]>("channel", "list")
    await host().must("channel", "close", (channel?.id ?? "").slice(0, 12))
    await revoked(commands, "closed by the operator")
    const again = await host().run("channel", "close", channel?.id ?? "")
    expect([again.status, again.stderr]).toEqual([2, expect.stringContaining("no channel")])
  })

  test("when its rule's max_seconds are over", async () => {
    await host().policy(ALLOW_ALL + "max_seconds = 1\n", "a", "b", "allow")
    // The rule in force is the new one once a transfer names it.
    await host().until("the new rule", async () => {
      const receiver = await host().recv("b", out("endless"))
      const sender = host().send("a", "b", "pipe")
      const status = await Promise.race([sender.process.exited, Bun.sleep(3 * SECOND).then(() => undefined)])
      if (status === undefined) sender.kill("SIGTERM")
      await Promise.all([sender.over(), receiver.over()])
      return status === 7 && sender.stderr().includes("the rule allows 1 seconds")
    })
    await host().policy(ALLOW_ALL, "a", "b", "allow")
  })
})

describe("a rule's max_channels", () => {
  test("refuses one more with status 6 and takes it again when one has ended", async () => {
    await host().policy("", "a", "b", "deny")
    await host().policy(ALLOW_ALL + "max_channels = 1\n", "a", "b", "allow")
    const { sender, receiver } = await running()
    const second = await host().recv("b", out("second"))
    const refused = await host().run("guest", "send", "--local", "a", "b")
    expect([refused.status, refused.stderr]).toEqual([
      6,
      expect.stringContaining("the policy of this host denies it"),
    ])
    expect(String((await host().audit("refused")).at(-1)?.["message"])).toContain("allows 1 channels at once")
    await (sender.process.stdin as Bun.FileSink).end()
    expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
    const third = host().send("a", "b", new Uint8Array(3), "--wait", "10s")
    expect([await third.over(), await second.over()]).toEqual([0, 0])
    await host().policy("", "a", "b", "deny")
    await host().policy(ALLOW_ALL, "a", "b", "allow")
  })
})
