/**
 * @module test/e2e/suspend
 *
 * A VM whose root puts the machine to sleep by the chipset's own register, past the kernel and past what the firmware
 * offers. Waking up would restart the TPM with its PCRs zero and its platform hierarchy open: the machine must not wake.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { Managed, until } from "./managed.ts"

let mvm: Managed
beforeAll(async () => {
  mvm = await Managed.start()
  await mvm.vm("sleeper", { image: "guest-attacker", memory: "1G" })
  await mvm.linked("sleeper")
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

test("root that writes the sleep register itself has its VM ended at once, for good, and the audit says why", async () => {
  const shell = await mvm.console("sleeper")
  await shell.must("bun --version")
  await mvm.learn("sleeper")
  const before = await mvm.show("sleeper")
  expect(before).toMatchObject({ state: "running", verdict: "trusted" })
  // It would wake a second later.
  await shell.must("echo +1 >/sys/class/rtc/rtc0/wakealarm")
  const asleep = performance.now()
  const said = shell.run("bun /root/suspend.js").then(
    ({ output }) => output,
    (error: Error) => error.message,
  )
  await until("the end of the VM", () => !existsSync(`/proc/${before.qemuPid}`), 30_000)
  console.log(`ended ${Math.round(performance.now() - asleep)} ms after the command was typed: ${await said}`)
  expect(await said).not.toContain("awake")
  await until("its end to be told", async () => (await mvm.show("sleeper")).state === "stopped")
  const halts = await mvm.json<unknown[]>("audit", "list", "--kind", "vm_halt")
  expect(halts).toEqual([
    expect.objectContaining({ vm: "sleeper", reason: expect.stringContaining("SUSPEND") }),
  ])
  expect(mvm.serveLog()).toContain('"vm_halt"')
  // Nobody but the operator starts it again.
  await Bun.sleep(3000)
  expect(await mvm.show("sleeper")).toMatchObject({ state: "stopped", qemuPid: null })
  await mvm.must("vm", "start", "sleeper")
  await mvm.linked("sleeper")
  expect(await mvm.judged("sleeper")).toBe("trusted")
}, 240_000)
