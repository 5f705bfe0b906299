/**
 * @module test/integration/guest-doctor
 *
 * `mvm guest doctor` where no VM is needed for it; test/e2e/doctor looks at VMs.
 */

import { expect, test } from "bun:test"
import { finding, runDoctor } from "./doctored.ts"
import { hostForFile } from "./host.ts"

const host = hostForFile({ members: ["a"] })

test("guest doctor of a local endpoint looks at its agent, memory, verdict and clock", async () => {
  // Asking is running a program, which the endpoint's table must have.
  const found = await runDoctor(host(), ["guest", "doctor", "--local", "a"])
  expect(found.findings.map(({ check, level }) => `${level} ${check}`)).toEqual([
    "ok agent",
    "ok memory",
    "ok verdict",
    "ok clock",
  ])
  expect(found.status).toBe(0)
})

test("guest doctor of a local endpoint without a reference table says what the MVM lacks", async () => {
  await host().must("vm", "create", "d", "--local")
  const agent = await host().agent("d")
  try {
    await host().run("measure", "run", "d")
    const found = await runDoctor(host(), ["guest", "doctor", "--local", "d"])
    expect([found.status, finding(found, "verdict").remedy]).toEqual([1, "on the host: mvm measure learn d"])
  } finally {
    agent.kill("SIGTERM")
    expect(await agent.over()).toBe(0)
    await host().must("vm", "stop", "d", "--force")
    await host().must("vm", "rm", "d")
  }
})

test("guest doctor on a machine without port, TPM and measuring kernel names all three, and the agent", async () => {
  const found = await runDoctor(host(), ["guest", "doctor", "--socket", "/nonexistent"], {
    before: "mount -t tmpfs tmpfs /sys",
  })
  const failed = found.findings.filter(({ level }) => level === "fail").map(({ check }) => check)
  expect(failed).toEqual(expect.arrayContaining(["port", "tpm", "measuring", "command line", "agent"]))
  expect(found.status).toBe(1)
  for (const { level, remedy } of found.findings) expect(remedy === undefined).toBe(level === "ok")
})
