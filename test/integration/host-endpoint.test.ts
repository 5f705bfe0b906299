/**
 * @module test/integration/host-endpoint
 *
 * The host itself as a member.
 */

import { describe, expect, test } from "bun:test"
import { mkdirSync, readFileSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { hostForFile, rule } from "./host.ts"

const host = hostForFile({ members: ["a"] })
const CONTENT = crypto.getRandomValues(new Uint8Array(100_000))

/** Agents of the endpoint `host` of this MVM. */
function agents(): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")
        return words.join(" ").includes(`guest agent --local host --state ${host().state}`)
      } catch {
        return false
      }
    })
}

async function sendFromHost(): Promise<void> {
  const receiver = await host().recv("a", join(host().folder, "out"), "host")
  const sender = host().spawn(["send", "a", "--digest", "sha256"], { stdin: CONTENT })
  expect([await sender.over(), sender.stderr()]).toEqual([0, expect.stringContaining("a is trusted")])
  expect(await receiver.over()).toBe(0)
  expect(new Uint8Array(readFileSync(join(host().folder, "out")))).toEqual(CONTENT)
}

describe("the endpoint of the host", () => {
  test("is made by the first who use it, once, and is not trusted before it was learnt", async () => {
    expect(agents()).toEqual([])
    const file = host().file("x", "x")
    const [first, second] = await Promise.all([host().run("send", "a", file), host().run("send", "a", file)])
    for (const { status, stderr } of [first, second]) {
      expect([status, stderr]).toEqual([3, expect.stringContaining("nobody on a waits for service default")])
    }
    expect(agents().length).toBe(1)
    const receiver = await host().recv("a", undefined)
    const { status, stderr } = await host().run("send", "a", file)
    expect(status).toBe(4)
    expect(stderr).toContain("host: there are no reference values for it")
    expect(stderr).toContain("mvm measure learn host")
    receiver.kill("SIGINT")
    await receiver.over()
    await host().must("measure", "learn", "host")
  })

  test("sends and receives as any member does, with a receipt", async () => {
    await sendFromHost()
    const receiver = host().spawn(["recv", "a"], { stdout: join(host().folder, "back") })
    await receiver.says("waiting for a")
    const sender = host().send("a", "host", CONTENT)
    expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
    expect(new Uint8Array(readFileSync(join(host().folder, "back")))).toEqual(CONTENT)
    const receipts = await host().audit("receipt")
    expect(receipts.map(({ by, peer }) => [by, peer])).toEqual([
      ["a", "host"],
      ["host", "a"],
    ])
  })

  test("calls services of a member, copies to it, and pings it", async () => {
    const service = await host().serves(
      "a",
      "who",
      "--",
      "/bin/sh",
      "-c",
      'echo "$MVM_PEER $MVM_ARG"; exit 3',
    )
    expect(await host().run("exec", "a", "who", "x")).toEqual({ status: 3, stdout: "host x\n", stderr: "" })
    service.kill("SIGTERM")
    await service.over()
    const folder = join(host().folder, "copies")
    mkdirSync(folder)
    const copies = host().spawn(["guest", "serve", "--local", "a", "--copy", folder])
    await copies.says("serving")
    const file = host().file("copied", CONTENT)
    expect((await host().run("cp", file, "a:")).status).toBe(0)
    expect(new Uint8Array(readFileSync(join(folder, "copied")))).toEqual(CONTENT)
    copies.kill("SIGTERM")
    await copies.over()
    expect(await host().must("ping", "a")).toContain("a is trusted")
  })

  test("is held to the policy as any member is", async () => {
    await host().policy(rule('service = "*"', 'from = "a"', 'to = "*"'), "host", "a", "deny")
    const { status, stderr } = await host().run("send", "a", host().file("x", "x"))
    expect([status, stderr]).toEqual([6, expect.stringContaining("the policy of this host denies it")])
    await host().policy(rule('service = "*"', 'from = "*"', 'to = "*"'), "host", "a", "allow")
  })

  test("has its agent started again when that dies", async () => {
    const [pid] = agents()
    process.kill(pid!, "SIGKILL")
    await host().until("another agent", () => agents().length === 1 && agents()[0] !== pid)
    await host().linked("host")
    await sendFromHost()
    expect(host().log()).toContain("host_agent_restart")
  })

  test("stays stopped when the operator stops it, until it is used again", async () => {
    await host().must("vm", "stop", "host")
    await host().until("no agent", () => agents().length === 0)
    expect(host().log()).toContain("host_agent_stopped")
    await host().must("vm", "start", "host")
    expect(agents().length).toBe(1)
    await host().must("vm", "stop", "host")
    await sendFromHost()
  })

  test("ends with the MVM and is there again with the next", async () => {
    expect(await host().stopServe()).toBe(0)
    expect(agents()).toEqual([])
    await host().serve()
    await host().linked("host")
    await host().linked("a")
    expect(agents().length).toBe(1)
    await sendFromHost()
  })

  test("has one agent after the MVM was killed", async () => {
    const [pid] = agents()
    await host().stopServe("SIGKILL")
    expect(agents()).toEqual([pid!])
    await host().serve()
    await host().until("another agent", () => agents().length === 1 && agents()[0] !== pid)
    await host().linked("host")
    await host().linked("a")
    await sendFromHost()
  })

  test("has a name that nobody else gets", async () => {
    const { status, stderr } = await host().run("vm", "create", "host", "--local")
    expect(status).toBe(2)
    expect(stderr).toContain("host is the host's own name")
    expect(stderr).toContain("hint: mvm vm start host")
  })

  test("is made again after it was removed", async () => {
    await host().must("vm", "stop", "host")
    await host().must("vm", "rm", "host")
    await host().must("measure", "learn", "host")
    await sendFromHost()
  })
})
