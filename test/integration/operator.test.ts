/**
 * @module test/integration/operator
 *
 * What an operator is told who names the wrong thing.
 */

import { expect, test } from "bun:test"
import { hostForFile } from "./host.ts"

const host = hostForFile({ members: ["a"] })

test("an agent for an endpoint that nobody made ends with status 2 and the command that makes one", async () => {
  const { status, stderr } = await host().run("guest", "agent", "--local", "nobody")
  expect([status, stderr]).toEqual([
    2,
    "mvm: there is no local endpoint nobody\nmvm: hint: mvm vm create nobody --local\n",
  ])
})

test("an agent without an MVM says that it waits, and ends with a signal", async () => {
  const words = ["guest", "agent", "--local", "a", "--state", "/nonexistent/mvm"]
  const agent = host().spawn(words)
  await agent.says("no MVM answers at /nonexistent/mvm/control.sock")
  agent.kill("SIGINT")
  expect(await agent.over()).toBe(0)
})

test("a second agent for an endpoint is refused, and the first goes on", async () => {
  const second = await host().run("guest", "agent", "--local", "a")
  expect([second.status, second.stderr]).toEqual([3, expect.stringContaining("an agent already answers at")])
  expect((await host().run("guest", "status", "--local", "a")).status).toBe(0)
})

test("what is not there, runs already or has no console is said with the next step", async () => {
  const said = async (...words: string[]): Promise<[number, string]> => {
    const { status, stderr } = await host().run(...words)
    return [status, stderr]
  }
  expect(await said("vm", "create", "a", "--local")).toEqual([
    1,
    "mvm: there is already a VM a\nmvm: hint: mvm vm show a shows it, mvm vm rm a removes it\n",
  ])
  expect(await said("vm", "start", "a")).toEqual([
    1,
    "mvm: a is already running\nmvm: hint: mvm vm wait a waits for its agent\n",
  ])
  expect(await said("vm", "console", "a")).toEqual([2, "mvm: a is a local endpoint, which has no console\n"])
  expect(await said("vm", "create", "b")).toEqual([
    2,
    expect.stringMatching(/^mvm: a VM needs --kernel and --initrd\nmvm: hint: .*--local\n$/),
  ])
  expect(await said("vm", "show", "nobody")).toEqual([
    2,
    "mvm: there is no VM nobody\nmvm: hint: mvm vm list shows them\n",
  ])
})
