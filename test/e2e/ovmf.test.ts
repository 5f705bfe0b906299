/**
 * @module test/e2e/ovmf
 *
 * A VM that OVMF starts: its firmware measures kernel, command line and initramfs, so a change of any of them shows
 * in the quote and not only in the MVM's own word.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { Managed, type VmState } from "./managed.ts"

interface Explanation {
  message: string | null
  checks: { ok: boolean; name: string; subject: string }[]
}

let mvm: Managed
let learnt: VmState

beforeAll(async () => {
  mvm = await Managed.start()
  await mvm.vm("web", { more: ["--firmware", "ovmf"] })
  await mvm.local("inbox")
  await mvm.linked("web")
  await mvm.learn("web", "inbox")
  await mvm.allow("web inbox")
  learnt = await mvm.show("web")
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

async function send(): Promise<{ status: number; output: string }> {
  const received = mvm.keepRunning(`received-${Date.now()}`, "guest", "recv", "--local", "inbox", "--quiet")
  const web = await mvm.console("web")
  const sent = await web.run("echo secret | mvm guest send inbox --wait 30s --quiet")
  const arrived = await Bun.file(received).text()
  expect(arrived).toBe(sent.status === 0 ? "secret\n" : "")
  return sent
}

/** Boots again with `append` added to the kernel command line. */
async function boot(append: string, before: VmState): Promise<VmState> {
  await mvm.must("vm", "stop", "web", "--force")
  await mvm.must("vm", "set", "web", "--append", append)
  await mvm.must("vm", "start", "web")
  return mvm.bootedAgain("web", before)
}

test("a VM started by OVMF is learnt and trusted, and what it sends arrives", async () => {
  expect(learnt.verdict).toBe("trusted")
  expect(await send()).toEqual({ status: 0, output: "" })
  const { checks } = await mvm.json<Explanation>("measure", "explain", "web")
  expect(checks.filter(({ ok }) => !ok)).toEqual([])
  // What firmware said it started is what the MVM gave it: predicted from the files, not learnt.
  const predicted = checks.filter(({ name, subject }) => name === "launch" && subject.startsWith("pcr "))
  expect(predicted.map(({ subject }) => subject).sort()).toEqual(["pcr 4", "pcr 9"])
}, 120_000)

test("a changed kernel command line is refused with status 4, and named by what the firmware measured", async () => {
  const changed = await boot("audit=1", learnt)
  expect(changed.verdict).toBe("untrusted")
  const { status, output } = await mvm.run("measure", "explain", "web", "--json")
  expect(status).toBe(4)
  const { message, checks } = JSON.parse(output) as Explanation
  expect(message).toContain("kernel command line")
  const failed = checks.filter(({ ok }) => !ok).map(({ subject }) => subject)
  expect(failed).toEqual(["launch:append", "pcr 9"])
  expect((await send()).status).toBe(4)
  const again = await boot("", changed)
  expect({ verdict: again.verdict, reason: again.reason }).toEqual({ verdict: "trusted", reason: null })
}, 240_000)
