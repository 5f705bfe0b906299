import { describe, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { VmManager } from "../../../src/mvm/vm/vms.ts"
import { endProcess, isRunning } from "../../../src/platform/process.ts"
import { connectUnix } from "../../../src/platform/unix-socket.ts"
import { closeLater, failure } from "../scratch-state.ts"
import { manager } from "./manager.ts"

describe("what was not done whole", () => {
  test("leaves no swtpm when a local endpoint's vTPM turns out to be an older copy", async () => {
    const { registry, vms, create } = await manager()
    const record = await create("a")
    registry.trust.setClock(record.uuid, { resetCount: 1000, restartCount: 0, clock: 0n })
    expect((await failure(() => vms.start(record))).code).toBe("evidence_rollback")
    expect(vms.isRunning(record.uuid)).toBe(false)
    const { vtpmData } = vms.paths(record)
    expect((await failure(() => connectUnix(vtpmData))).code).toBe("unreachable")
  })

  test("leaves no VM that the audit does not tell of", async () => {
    const { stateDir, registry, create } = await manager()
    registry.database.prepare("ALTER TABLE audit RENAME TO audit_gone").run()
    await failure(() => create("a"))
    registry.database.prepare("ALTER TABLE audit_gone RENAME TO audit").run()
    expect(registry.listVms()).toEqual([])
    expect(readdirSync(stateDir.vmsDir)).toEqual([])
    await create("a")
  })

  test("is told as ended when its processes ended while no MVM was there", async () => {
    const { parts, vms, stopped, create } = await manager()
    const record = await create("a")
    await vms.start(record)
    const { vtpm } = vms.runState(record.uuid)!
    vms.close()
    await endProcess(vtpm)
    const next = new VmManager(parts)
    closeLater(() => next.close())
    next.adopt()
    expect(next.isThere(record.uuid)).toBe(true)
    while (next.isThere(record.uuid)) await Bun.sleep(5)
    expect(stopped).toEqual(["it ended while no MVM was there"])
    await next.start(record)
    await next.stop(record)
  })
})

describe("a member whose vTPM started again behind the MVM's back", () => {
  test("is ended at once, and is not started again but by the operator; the audit says why", async () => {
    const { audit, registry, vms, stopped, halted, create } = await manager()
    const record = await create("a")
    await vms.start(record)
    const { vtpm } = vms.runState(record.uuid)!
    vms.halt(record, "its vTPM was reset")
    vms.halt(record, "once more")
    while (vms.isRunning(record.uuid)) await Bun.sleep(5)
    expect([isRunning(vtpm), halted, stopped]).toEqual([
      false,
      ["its vTPM was reset"],
      ["its vTPM was reset"],
    ])
    audit.flush()
    const rows = audit.log
      .list({ limit: 100 })
      .filter(({ kind }) => /^vm_(halt|exit)$/.test(kind))
      .reverse()
    const subject = { vm: "a", reason: "its vTPM was reset" }
    expect(rows.map((row) => [row.kind, row.subject])).toEqual([
      ["vm_halt", subject],
      ["vm_exit", subject],
    ])
    vms.halt(registry.getVm("a")!, "it does not run")
    expect(halted).toHaveLength(1)
    await vms.start(record)
    await vms.stop(record)
  })
})
