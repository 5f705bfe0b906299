/**
 * @module test/integration/service-manager
 *
 * What the two daemons tell systemd, over a real datagram socket.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { join } from "node:path"
import { Datagrams } from "../platform/datagrams.ts"
import { TestHost } from "./host.ts"

let host: TestHost
let datagrams: Datagrams
const open: Datagrams[] = []

async function listening(folder: string, name: string): Promise<Datagrams> {
  const made = await Datagrams.listen(join(folder, `${name}.sock`), join(folder, `${name}.said`))
  open.push(made)
  return made
}

beforeAll(async () => {
  host = await TestHost.start({
    serve: ["--log-format", "json"],
    environment: async (folder) => {
      datagrams ??= await listening(folder, "serve")
      return { NOTIFY_SOCKET: datagrams.address, WATCHDOG_USEC: "200000" }
    },
  })
}, 60_000)

afterAll(async () => {
  for (const one of open) await one.close()
  await host.end()
}, 60_000)

test("mvm serve is ready when it answers, says what it does and that it lives, and that it ends", async () => {
  const lines = await datagrams.until("life", (all) => all.filter((line) => line === "WATCHDOG=1").length > 2)
  expect(lines.slice(0, 2)).toEqual(["READY=1", "STATUS=0 of 0 VMs running, 0 linked, 0 channels"])
  await host.member("a")
  await datagrams.until("the new member", (all) =>
    all.includes("STATUS=1 of 1 VMs running, 1 linked, 0 channels"),
  )
  host.writePolicy("[[rule]]\n")
  await datagrams.until("the broken policy", (all) =>
    all.some((line) => line.endsWith("the policy is broken: everything is denied")),
  )
})

test("the agent that mvm serve runs for the host says nothing in its place", async () => {
  const file = host.file("x", "x")
  expect((await host.run("send", "a", file)).status).toBe(6)
  const both = "STATUS=2 of 2 VMs running, 2 linked, 0 channels, the policy is broken: everything is denied"
  const lines = await datagrams.until("the host", (all) => all.includes(both))
  expect(lines.filter((line) => line === "READY=1" || line.startsWith("STATUS=linked as"))).toEqual([
    "READY=1",
  ])
  await host.must("vm", "stop", "host")
  await host.must("vm", "rm", "host")
})

test("an agent is ready when it serves commands, and says when it is linked", async () => {
  await host.must("vm", "create", "b", "--local")
  const agents = await listening(host.folder, "agent")
  const agent = host.spawn(["guest", "agent", "--local", "b"], {
    env: { NOTIFY_SOCKET: agents.address, WATCHDOG_USEC: "200000" },
  })
  await agents.until("link and life", (all) => {
    return all.includes("STATUS=linked as b, 0 channels, 0 offers") && all.includes("WATCHDOG=1")
  })
  expect(agents.lines()[0]).toBe("READY=1")
  agent.kill("SIGTERM")
  expect(await agent.over()).toBe(0)
  const lines = await agents.until("the end", (all) => all.includes("STOPPING=1"))
  expect(lines.at(-1)).toBe("STOPPING=1")
})

test("a log in JSON has an object a line, each with time, level and event", () => {
  const lines = host.log().trimEnd().split("\n")
  expect(lines.length).toBeGreaterThan(3)
  for (const line of lines) {
    const { time, level, event } = JSON.parse(line) as Record<string, unknown>
    expect([new Date(String(time)).toISOString(), typeof event]).toEqual([String(time), "string"])
    expect(["debug", "info", "warn", "error"]).toContain(String(level))
  }
  expect(lines.some((line) => line.includes('"event":"serving"'))).toBe(true)
})

test("the end of mvm serve is said before it comes", async () => {
  await host.agentOf("a").kill("SIGTERM")
  expect(await host.agentOf("a").over()).toBe(0)
  expect(await host.stopServe()).toBe(0)
  expect((await datagrams.until("the end", (all) => all.includes("STOPPING=1"))).at(-1)).toBe("STOPPING=1")
  await host.serve()
})
