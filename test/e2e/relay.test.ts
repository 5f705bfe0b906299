/**
 * @module test/e2e/relay
 *
 * Real VMs that cannot map shared memory: one whose kernel is locked down, one that has no such device. And ordinary
 * users in a VM that can, whose records go through the agent.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import type { Console } from "./console.ts"
import { Background, Managed, until } from "./managed.ts"

/** A file of a few MiB. */
const SMALL = "/bin/busybox"

let mvm: Managed
let alpha: Console
let locked: Console
let bare: Console

beforeAll(async () => {
  mvm = await Managed.start()
  await mvm.vm("alpha")
  await mvm.vm("locked", { more: ["--append", "lockdown=integrity"] })
  await mvm.vm("bare", { more: ["--memory-device", "none"] })
  const names = ["alpha", "locked", "bare"]
  await mvm.linked(...names)
  await mvm.learn(...names)
  await mvm.allow("* *")
  alpha = await mvm.console("alpha")
  locked = await mvm.console("locked")
  bare = await mvm.console("bare")
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

/** Sends `path` and compares; what the receiver reported. */
async function pass(from: Console, to: [Console, string], path: string): Promise<Record<string, unknown>> {
  const [receiver, target] = to
  const receiving = receiver.run("mvm guest recv --json 2>/tmp/facts | sha256sum", { timeoutMs: 180_000 })
  const sent = await from.run(`mvm guest send ${target} ${path} --wait 60s --quiet`, { timeoutMs: 180_000 })
  expect(sent).toEqual({ status: 0, output: "" })
  expect((await receiving).output).toBe(`${await from.must(`sha256sum <${path}`)}\n`)
  return JSON.parse((await receiver.must("tail -n 1 /tmp/facts")).trim()) as Record<string, unknown>
}

describe("a VM that cannot map shared memory", () => {
  test("says so and why: a locked-down kernel, or no device", async () => {
    const status = async (vm: Console) => JSON.parse(await vm.must("mvm guest status --json")) as object
    expect(await status(alpha)).toMatchObject({ transport: "memory" })
    expect(await locked.must("cat /sys/kernel/security/lockdown")).toContain("[integrity]")
    expect(await status(locked)).toMatchObject({
      transport: "relay",
      mapping: expect.stringMatching(/^none: mmap .*resource2: EPERM$/) as string,
    })
    expect(await bare.must("cat /sys/bus/pci/devices/*/device | grep -c 0x1110 || :")).toBe("0")
    expect(await status(bare)).toMatchObject({
      transport: "relay",
      mapping: "none: this machine has no shared memory device",
    })
    const { vms } = await mvm.json<{ vms: { name: string; transport: string }[] }>("status")
    expect(vms.map(({ name, transport }) => `${name} ${transport}`).sort()).toEqual([
      "alpha memory",
      "bare relay",
      "locked relay",
    ])
  })

  test("sends to one that can, and gets from it, over the relay, which is said", async () => {
    const there = await pass(locked, [alpha, "alpha"], SMALL)
    expect(there).toMatchObject({ peer: "locked", transport: "relay", isolation: null })
    const back = await pass(alpha, [bare, "bare"], SMALL)
    expect(back).toMatchObject({ peer: "alpha", transport: "relay", isolation: null })
    const receipts = await mvm.json<{ by: string; peer: string }[]>("audit", "list", "--kind", "receipt")
    expect(receipts.slice(-2).map(({ by, peer }) => `${peer} to ${by}`)).toEqual([
      "locked to alpha",
      "alpha to bare",
    ])
  }, 300_000)

  test("may keep its whole link busy: others get their channels, records and receipts meanwhile", async () => {
    const receiving = await Background.start(alpha, "bulk", "mvm guest recv locked --quiet | wc -c")
    const sending = await Background.start(
      locked,
      "bulk",
      `while [ ! -e /tmp/enough ]; do cat ${SMALL}; done | mvm guest send alpha --wait 60s --quiet`,
    )
    await until("the bulk", async () => {
      const open = await mvm.json<{ state: string }[]>("channel", "list")
      return open.some(({ state }) => state === "open")
    })
    for (let count = 0; count < 3; count += 1) {
      const [got] = await Promise.all([
        alpha.run("mvm guest recv bare --quiet"),
        bare.must("echo small | mvm guest send alpha --wait 60s --quiet"),
      ])
      expect(got).toEqual({ status: 0, output: "small\n" })
    }
    const open = await mvm.json<{ asker: string; state: string }[]>("channel", "list")
    expect(open).toMatchObject([{ asker: "locked", state: "open" }])
    await locked.must("touch /tmp/enough")
    expect(await sending.end()).toEqual({ status: 0, output: "" })
    const receivedBytes = Number((await receiving.end()).output)
    const fileBytes = Number(await locked.must(`stat -c %s ${SMALL}`))
    expect(receivedBytes).toBeGreaterThan(fileBytes)
    expect(receivedBytes % fileBytes).toBe(0)
  }, 300_000)
})

describe("an ordinary user of a VM", () => {
  beforeAll(async () => {
    for (const vm of [alpha, bare]) {
      await vm.must("sed -i 's/^mvm:x:900:$/mvm:x:900:user/' /etc/group")
      await vm.must("echo stranger:x:1001:1001:stranger:/tmp:/bin/sh >>/etc/passwd")
      expect(await vm.must("su user -c id")).toContain("(mvm)")
      expect(await vm.must("su stranger -c id")).not.toContain("(mvm)")
    }
  })

  test("of the agent's group sends and receives; records go through the agent, which maps for it", async () => {
    const sending = await Background.start(
      alpha,
      "user",
      `su user -c 'mvm guest send locked ${SMALL} --wait 60s --json'`,
    )
    const got = await locked.run("mvm guest recv alpha --quiet | sha256sum", { timeoutMs: 180_000 })
    expect(got.output).toBe(`${await alpha.must(`sha256sum <${SMALL}`)}\n`)
    expect(await sending.end()).toMatchObject({ status: 0 })
  }, 200_000)

  test("outside the group is refused with status 6, and told what is missing", async () => {
    const { status, output } = await alpha.run("su stranger -c 'echo x | mvm guest send locked'")
    expect(status).toBe(6)
    expect(output).toContain("this user may not use the agent at /run/mvm/agent.sock")
  })
})
