/** @module test/integration/statuses */

import { describe, expect, test } from "bun:test"
import { appendFileSync, copyFileSync, mkdirSync, openSync } from "node:fs"
import { join } from "node:path"
import { ALLOW_ALL, hostForFile, rule, type Outcome } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

/** Status and the lines of an error: what, and what to do. */
function said(outcome: Outcome): [number, ...string[]] {
  return [outcome.status, ...outcome.stderr.trim().split("\n")]
}

function send(target: string, ...words: string[]): Promise<Outcome> {
  return host().run("guest", "send", "--local", "a", target, ...words)
}

async function refusals(): Promise<Record<string, unknown>[]> {
  return host().audit("refused")
}

describe("send ends with status 3", () => {
  test("for a VM that does not exist, under a rule that would allow it", async () => {
    const [status, what] = said(await send("nobody"))
    expect([status, what]).toEqual([3, "mvm: there is no VM nobody"])
  })

  test("for a VM whose agent does not run", async () => {
    await host().must("vm", "create", "asleep", "--local")
    const [status, what, hint] = said(await send("asleep"))
    expect([status, what]).toEqual([3, "mvm: asleep has no agent connected"])
    expect(hint).toContain("mvm: hint: ")
  })

  test("without an agent, naming the socket", async () => {
    const [status, what, hint] = said(await host().run("guest", "send", "--local", "asleep", "b"))
    expect([status, what]).toEqual([3, `mvm: no agent answers at ${host().state}/run/asleep/agent.sock`])
    expect(hint).toContain("mvm guest agent")
  })

  test("without a receiver, at once or when --wait has run out", async () => {
    const [status, what, hint] = said(await send("b"))
    expect([status, what]).toEqual([3, "mvm: nobody on b waits for service default"])
    expect(hint).toContain("--wait")
    const began = performance.now()
    expect(said(await send("b", "--wait", "300ms")).slice(0, 2)).toEqual([status, String(what)])
    expect(performance.now() - began).toBeGreaterThan(300)
  })

  test("when the receiver's output closed, with the receiver's reason; the receiver's own status is 1", async () => {
    const receiver = await host().recv("b", "pipe")
    const reader = (receiver.process.stdout as ReadableStream<Uint8Array>).getReader()
    const sender = host().send("a", "b", "pipe")
    const stdin = sender.process.stdin as Bun.FileSink
    stdin.write(new Uint8Array(100_000))
    await stdin.flush()
    await reader.read()
    await reader.cancel()
    const writing = (async () => {
      for (let count = 0; count < 1000 && sender.process.exitCode === null; count += 1) {
        stdin.write(new Uint8Array(100_000))
        await stdin.flush()
      }
      await stdin.end()
    })().catch(() => undefined)
    expect([await sender.over(), await receiver.over()]).toEqual([3, 1])
    await writing
    expect(sender.stderr()).toContain("b gave up: cannot write the output: EPIPE")
    expect(receiver.stderr()).toContain("cannot write the output: EPIPE")
  })

  test("when the receiver's disk is full", async () => {
    const receiver = await host().recv("b", openSync("/dev/full", "w"))
    const sender = host().send("a", "b", new Uint8Array(100))
    expect([await sender.over(), await receiver.over()]).toEqual([3, 1])
    expect(sender.stderr()).toContain("b gave up: cannot write the output: ENOSPC")
    expect(receiver.stderr()).toContain("cannot write the output: ENOSPC")
  })
})

describe("recv ends with status 3", () => {
  test("when the sender cannot read its input, with the sender's reason", async () => {
    const receiver = await host().recv("b", undefined)
    const sender = host().send("a", "b", openSync("/proc/self/mem", "r"))
    expect([await sender.over(), await receiver.over()]).toEqual([1, 3])
    expect(sender.stderr()).toContain("cannot read the input: EIO")
    expect(receiver.stderr()).toContain("a gave up: cannot read the input: EIO")
  })

  test("for a request that nobody offers", async () => {
    const outcome = await host().run("guest", "recv", "a", "--local", "b", "--request", "--wait", "100ms")
    expect(said(outcome).slice(0, 2)).toEqual([3, "mvm: nobody on a offers service default"])
    expect(outcome.stderr).toContain("send --offer")
  })
})

describe("send ends with status 6", () => {
  test("when the policy denies, and the audit names the rule", async () => {
    const denying = '[[rule]]\nservice = "*"\nfrom = "a"\nto = "b"\naction = "deny"\ncomment = "not today"\n'
    await host().policy(denying, "a", "b", "deny")
    expect(said(await send("b"))).toEqual([
      6,
      "mvm: the policy of this host denies it",
      "mvm: hint: operator: mvm audit list --kind refused names the rule",
    ])
    expect((await refusals()).at(-1)).toMatchObject({
      asker: "a",
      target: "b",
      code: "denied",
      message: "policy.toml:1 (not today) denies service default from a to b",
    })
  })

  test("for an unknown VM too where no rule names it: names cannot be probed", async () => {
    await host().policy(rule('service = "x"', 'from = "a"', 'to = "b"'), "a", "b", "deny")
    const unknown = await send("nobody")
    expect(said(unknown)).toEqual(said(await send("b")))
  })

  test("for everything under a broken policy, which is named with its line", async () => {
    host().writePolicy(`${ALLOW_ALL}\nprogramms = ["/bin/true"]\n`)
    await host().until("the broken policy", async () => (await host().status()).policy.state === "broken")
    expect(said(await send("b"))).toEqual([
      6,
      "mvm: the policy is broken, so nothing is allowed",
      "mvm: hint: operator: mvm policy check says where",
    ])
    expect(String((await refusals()).at(-1)?.["message"])).toMatch(/policy\.toml:\d+:\d+: .*programms/)
    const checked = await host().run("policy", "check")
    expect([checked.status, checked.stderr]).toEqual([
      6,
      expect.stringMatching(/policy\.toml:\d+:\d+: .*programms/),
    ])
    expect((await host().status()).policy.reason).toContain("programms")
  })

  test("without a policy", async () => {
    await Bun.file(join(host().state, "policy.toml")).delete()
    await host().until("no policy", async () => (await host().status()).policy.state === "broken")
    expect((await send("b")).status).toBe(6)
    expect((await host().run("policy", "check")).stderr).toContain("there is no policy")
    await host().policy(ALLOW_ALL, "a", "b", "allow")
  })

  test("when the policy wants a kernel's log and an agent made it", async () => {
    const strict = ALLOW_ALL.replace('["kernel", "agent"]', '["kernel"]')
    await host().policy(strict, "a", "b", "deny")
    const receiver = await host().recv("b", undefined)
    expect((await send("b")).status).toBe(6)
    expect(String((await refusals()).at(-1)?.["message"])).toContain("measurement log made by the agent")
    receiver.kill("SIGTERM")
    await receiver.over()
    await host().policy(ALLOW_ALL, "a", "b", "allow")
  })
})

describe("an end without trust", () => {
  test("is refused with status 4 when there are no reference values for it", async () => {
    await host().must("vm", "create", "new", "--local")
    await host().agent("new")
    const receiver = await host().recv("b", undefined)
    const outcome = await host().run("guest", "send", "--local", "new", "b")
    expect(said(outcome)).toEqual([
      4,
      "mvm: new: there are no reference values for it",
      "mvm: hint: operator: mvm measure learn new",
    ])
    receiver.kill("SIGTERM")
    await receiver.over()
  })

  test("tells the other end that it is not trusted, and no more", async () => {
    const receiver = await host().recv("new", undefined)
    const sender = await send("new")
    expect(said(sender)).toEqual([4, "mvm: the other end's software is not trusted"])
    expect(await receiver.over()).toBe(4)
    expect(receiver.stderr()).toContain("new: there are no reference values for it")
  })

  test("is refused for a program that was not learnt, which is named to it and to the operator", async () => {
    const changed = join(host().folder, "bin/mvm")
    mkdirSync(join(host().folder, "bin"), { recursive: true })
    copyFileSync(host().mvm, changed)
    appendFileSync(changed, "\n")
    await host().must("measure", "learn", "new")
    const receiver = await host().recv("b", undefined)
    const outcome = await host().runWith({ program: changed }, "guest", "send", "--local", "new", "b")
    expect([outcome.status, outcome.stderr]).toEqual([4, expect.stringContaining(changed)])
    // At the answerer the same, and the asker learns less.
    const answerer = host().spawn(["guest", "recv", "--local", "new"], { program: changed })
    await answerer.says("waiting for")
    const asker = await send("new")
    expect(said(asker)).toEqual([4, "mvm: the other end's software is not trusted"])
    expect(await answerer.over()).toBe(4)
    expect(answerer.stderr()).toContain(changed)
    const explained = await host().run("measure", "explain", "new")
    expect([explained.status, explained.stdout]).toEqual([4, expect.stringContaining(changed)])
    receiver.kill("SIGTERM")
    await receiver.over()
  })
})

describe("wrong usage", () => {
  const wrong: [string, string[], string][] = [
    ["an unknown command", ["guest", "sned", "b"], "there is no command mvm guest sned"],
    ["an unknown option", ["guest", "send", "b", "--wiat", "1s"], "has no option --wiat"],
    ["a missing target", ["guest", "send"], "an argument is missing"],
    ["a bad duration", ["guest", "send", "b", "--wait", "soon"], "--wait: soon"],
    ["a bad digest", ["guest", "send", "b", "--digest", "md5"], "--digest: md5"],
    [
      "a missing file",
      ["guest", "send", "--local", "a", "b", "/none/such"],
      "cannot read /none/such: no such file",
    ],
    ["a folder", ["guest", "send", "--local", "a", "b", "/tmp"], "/tmp is a directory"],
    ["--request without a source", ["guest", "recv", "--request"], "--request needs a source"],
    ["--keep with --once", ["guest", "recv", "--keep", "--once"], "exclude each other"],
    ["an impossible name", ["vm", "create", "a/b", "--local"], "a/b cannot name a VM"],
    ["a reserved name", ["vm", "create", "any", "--local"], "any cannot name a VM"],
    ["a service that is no name", ["guest", "send", "--local", "a", "b", "--service", "a b"], "service"],
    ["a target that is no name", ["guest", "send", "--local", "a", "a b"], "target"],
    ["too many arguments", ["guest", "send", "a", "b", "c"], "c is one argument too many"],
  ]
  test.each(wrong)("ends with status 2: %s", async (_name, words, message) => {
    const outcome = await host().run(...words)
    expect([outcome.status, outcome.stderr.toLowerCase()]).toEqual([
      2,
      expect.stringContaining(message.toLowerCase()),
    ])
    expect(outcome.stdout).toBe("")
    expect(outcome.stderr).not.toContain("    at ")
  })

  test("suggests the nearest command", async () => {
    const outcome = await host().run("guest", "sned", "b")
    expect(outcome.stderr).toContain("hint: did you mean mvm guest send?")
  })
})

test("nothing of all this is left in the arena, and the audit holds", async () => {
  await host().free()
  expect(await host().must("audit", "verify")).toContain("chain and signatures hold")
})
