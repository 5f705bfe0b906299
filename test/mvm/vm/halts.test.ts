import { expect, test } from "bun:test"
import { join } from "node:path"
import { Log } from "../../../src/lib/log.ts"
import { AuditCommitter } from "../../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../../src/mvm/state/audit.ts"
import { openRegistry } from "../../../src/mvm/state/registry.ts"
import { Halts } from "../../../src/mvm/vm/halts.ts"
import { endProcess, identifyProcess, isRunning } from "../../../src/platform/process.ts"
import { closeLater, sampleVm, scratchFolder, scratchState } from "../scratch-state.ts"

/** A process that does not end when it is asked to. */
function stubborn() {
  const child = Bun.spawn(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
  closeLater(() => child.kill("SIGKILL"))
  return { child, id: identifyProcess(child.pid)! }
}

test("QEMU is killed before whoever runs it is asked, and that one is asked until the rest is gone, too", async () => {
  const stateDir = await scratchState(join(scratchFolder(), "s"))
  const registry = openRegistry(stateDir)
  closeLater(() => registry.close())
  const log = new Log({ level: "error", format: "text" })
  const audit = new AuditCommitter(openAudit(stateDir, registry), log)
  const [qemu, vtpm] = [stubborn(), stubborn()]
  const state = { qemu: qemu.id, vtpm: vtpm.id, resetCount: 1, startedMs: Date.now() }
  const said: string[] = []
  const halts = new Halts({
    audit,
    log,
    onHalt: (record, reason) => said.push(`${record.name}: ${reason}`),
    end: async () => {
      said.push(`asked, QEMU is ${isRunning(qemu.id) ? "there" : "gone"}`)
      if (said.length < 3) throw new Error("libvirt does not answer")
      await endProcess(vtpm.id, 0)
    },
  })
  const record = sampleVm("web", { kind: "libvirt" })
  halts.begin(record, state, "it slept")
  halts.begin(record, state, "it woke up")
  expect(halts.reasonOf(state)).toBe("it slept")
  await qemu.child.exited
  expect(qemu.child.signalCode).toBe("SIGKILL")
  await vtpm.child.exited
  expect(said[0]).toBe("web: it slept")
  expect(said.slice(1).map((one) => one.slice(0, 5))).toEqual(["asked", "asked"])
  expect(said[2]).toBe("asked, QEMU is gone")
  audit.flush()
  const rows = audit.log.list({ kind: "vm_halt", limit: 9 })
  expect(rows.map(({ subject }) => subject)).toEqual([{ vm: "web", reason: "it slept" }])
}, 20_000)
