import { describe, expect, test } from "bun:test"
import type { VmRecord } from "../../../src/mvm/state/registry.ts"
import { isRunning, signalProcess } from "../../../src/platform/process.ts"
import { failure } from "../scratch-state.ts"
import { manager } from "./manager.ts"

/** A running VM with a guest that does not listen, and its monitor at hand. */
async function deaf() {
  const made = await manager()
  const { vms, parts } = made
  const record = await made.createDeaf("a")
  await vms.start(record)
  while (!parts.monitors.of(record.uuid)) await Bun.sleep(5)
  const end = () => vms.stop(record, { force: true })
  return { ...made, record, qemu: vms.runState(record.uuid)!.qemu!, end }
}

/** What the audit has of its ends, in order. */
function ends({ audit }: Pick<Awaited<ReturnType<typeof manager>>, "audit">, { name }: VmRecord): string[] {
  audit.flush()
  return audit.log
    .list({ limit: 100 })
    .filter(({ kind, subject }) => /^vm_(stop|exit)$/.test(kind) && subject["vm"] === name)
    .map(({ kind }) => kind)
    .reverse()
}

describe("a guest that does not shut down", () => {
  test("runs on when its time is over, and the way to end it is named", async () => {
    const made = await deaf()
    const { vms, record, qemu, stopped, end } = made
    const { code, status, hint, message } = await failure(() => vms.stop(record, { timeoutMs: 300 }))
    expect({ code, status, hint, message }).toEqual({
      code: "timeout",
      status: 3,
      hint: "mvm vm stop a --force ends it at once",
      message: "a did not shut down within 300 ms",
    })
    expect([isRunning(qemu), vms.isRunning(record.uuid), stopped, ends(made, record)]).toEqual([
      true,
      true,
      [],
      [],
    ])
    await end()
    expect([isRunning(qemu), vms.isRunning(record.uuid), stopped, ends(made, record)]).toEqual([
      false,
      false,
      ["stopped by the operator"],
      ["vm_stop"],
    ])
  }, 30_000)

  test("can be ended at once while it is waited for, and who waited is told that it ended", async () => {
    const { vms, record, end, stopped } = await deaf()
    const waiting = vms.stop(record, { timeoutMs: 60_000 })
    await Bun.sleep(200)
    await end()
    await waiting
    expect(stopped).toEqual(["stopped by the operator"])
  }, 30_000)

  test("and whose end comes later has ended by itself", async () => {
    const made = await deaf()
    const { vms, record, qemu, stopped } = made
    await failure(() => vms.stop(record, { timeoutMs: 100 }))
    signalProcess(qemu, "SIGKILL")
    while (vms.isRunning(record.uuid)) await Bun.sleep(5)
    expect(stopped).toEqual(["qemu ended"])
    while (ends(made, record).length === 0) await Bun.sleep(5)
    expect(ends(made, record)).toEqual(["vm_exit"])
  }, 30_000)
})

test("a guest that ends when it is asked is stopped by the operator, and said so once", async () => {
  const made = await deaf()
  const { vms, record, qemu, stopped } = made
  const stopping = vms.stop(record)
  await Bun.sleep(200)
  signalProcess(qemu, "SIGTERM")
  await stopping
  expect([stopped, ends(made, record)]).toEqual([["stopped by the operator"], ["vm_stop"]])
}, 30_000)

test("a VM whose monitor does not answer is left alone at once, and the way to end it is named", async () => {
  const { vms, parts, record, qemu, end } = await deaf()
  parts.monitors.drop(record.uuid)
  while (parts.monitors.of(record.uuid)) await Bun.sleep(5)
  const { status, hint } = await failure(() => vms.stop(record))
  expect([status, hint, isRunning(qemu)]).toEqual([3, "mvm vm stop a --force ends it at once", true])
  await end()
}, 30_000)

describe("a reboot", () => {
  test("is an end in order and another start, and neither where the guest does not shut down", async () => {
    const { vms, record, qemu, stopped, end } = await deaf()
    expect((await failure(() => vms.reboot(record, { timeoutMs: 100 }))).code).toBe("timeout")
    expect([vms.runState(record.uuid)!.qemu, stopped]).toEqual([qemu, []])
    const rebooting = vms.reboot(record, {})
    await Bun.sleep(200)
    signalProcess(qemu, "SIGTERM")
    await rebooting
    expect(vms.runState(record.uuid)!.qemu!.pid).not.toBe(qemu.pid)
    expect(stopped).toEqual(["stopped by the operator"])
    await end()
  }, 30_000)

  test("is none for what the MVM could not start again", async () => {
    const { vms, create, createDeaf } = await manager()
    const local = await create("l")
    await vms.start(local)
    for (const record of [local, await createDeaf("x", "external")]) {
      expect((await failure(() => vms.reboot(record, {}))).code).toBe("usage")
      expect(vms.isRunning(record.uuid)).toBe(record === local)
    }
    await vms.stop(local)
    await vms.remove(vms.require("x"))
  }, 30_000)
})
