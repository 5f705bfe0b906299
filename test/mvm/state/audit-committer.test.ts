import { describe, expect, test } from "bun:test"
import { Log } from "../../../src/lib/log.ts"
import { AuditCommitter } from "../../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../../src/mvm/state/audit.ts"
import { openRegistry } from "../../../src/mvm/state/registry.ts"
import { closeLater, failure, scratchState } from "../scratch-state.ts"

async function committer(): Promise<AuditCommitter> {
  const state = await scratchState()
  const registry = openRegistry(state)
  closeLater(() => registry.close())
  return new AuditCommitter(openAudit(state, registry), new Log({ level: "error", format: "text" }))
}

describe("rows of one turn", () => {
  test("are all written, in order", async () => {
    const audit = await committer()
    await Promise.all([1, 2, 3].map((number) => audit.commit("fin", { number })))
    expect(audit.log.list().map((row) => row.subject["number"])).toEqual([3, 2, 1])
  })

  test("are not lost with one among them that cannot be written", async () => {
    const audit = await committer()
    const good = [audit.commit("fin", { number: 1 })]
    const bad = audit.commit("fin", { number: NaN })
    good.push(audit.commit("fin", { number: 2 }))
    expect((await failure(() => bad)).code).toBe("config")
    await Promise.all(good)
    expect(audit.log.list().map((row) => row.subject["number"])).toEqual([2, 1])
    expect((await audit.log.verify()).ok).toBe(true)
  })
})
