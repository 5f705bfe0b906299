/**
 * @module test/integration/policy-test
 *
 * mvm policy check and test as an operator uses them: on a file that was just written, with real members.
 */

import { describe, expect, test } from "bun:test"
import { hostForFile, rule } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })
const KERNEL_ONLY = '[[rule]]\nservice = "*"\nfrom = "a"\nto = "b"\naction = "allow"\n'

describe("policy test", () => {
  test("answers from the file as it was just written", async () => {
    for (let round = 0; round < 3; round += 1) {
      host().writePolicy(rule('service = "*"', 'from = "a"', 'to = "b"'))
      const allowed = await host().run("policy", "test", "default", "a", "b")
      expect([allowed.status, allowed.stdout]).toEqual([
        0,
        "allow: policy.toml:1 allows service default from a to b\n",
      ])
      host().writePolicy("")
      const denied = await host().run("policy", "test", "default", "a", "b")
      expect([denied.status, denied.stdout]).toEqual([
        6,
        "deny: no rule of policy.toml matches service default from a to b\n",
      ])
    }
  })

  test("denies what would be denied for who keeps the measurement log", async () => {
    host().writePolicy(KERNEL_ONLY)
    const { status, stdout } = await host().run("policy", "test", "default", "a", "b")
    expect(status).toBe(6)
    expect(stdout).toStartWith("deny: a: the rule does not count a measurement log that the agent keeps")
    const receiving = await host().recv("b", undefined)
    expect((await host().run("guest", "send", "b", "--local", "a")).status).toBe(6)
    receiving.kill("SIGTERM")
    await receiving.over()
  })
})

test("policy check warns of names that no VM has", async () => {
  host().writePolicy(rule('service = "*"', 'from = "a"', 'to = "bb"'))
  const { status, stdout, stderr } = await host().run("policy", "check")
  expect(status).toBe(0)
  expect(stdout).toEndWith("policy.toml: 1 rule\n")
  expect(stderr).toBe("mvm: warning: policy.toml:1: to: there is no VM bb\n")
})

test("status --wait returns once the MVM answers, and gives up with status 3", async () => {
  expect((await host().run("status", "--wait")).status).toBe(0)
  const nobody = await host().run("status", "--wait", "10ms", "--state", "/nonexistent/mvm")
  expect(nobody.status).toBe(3)
})
