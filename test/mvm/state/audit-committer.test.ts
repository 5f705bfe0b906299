import { describe, expect, test } from "bun:test"
import { MvmError } from "../../../src/lib/errors.ts"
import { Log } from "../../../src/lib/log.ts"
import { AuditCommitter } from "../../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../../src/mvm/state/audit.ts"
import { ChannelStore } from "../../../src/mvm/state/channel-store.ts"
import type { StateDatabase } from "../../../src/mvm/state/database.ts"
import { openRegistry } from "../../../src/mvm/state/registry.ts"
import { closeLater, failure, scratchState } from "../scratch-state.ts"

async function committer(): Promise<AuditCommitter> {
  return (await withDatabase()).audit
}

async function withDatabase(): Promise<{ audit: AuditCommitter; database: StateDatabase }> {
  const state = await scratchState()
  const registry = openRegistry(state)
  closeLater(() => registry.close())
  const audit = new AuditCommitter(openAudit(state, registry), new Log({ level: "error", format: "text" }))
  return { audit, database: registry.database }
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

  test("take with them what was written alongside, or none of it", async () => {
    const { audit, database } = await withDatabase()
    const store = new ChannelStore(database)
    await audit.commit("grant", { number: 1 }, () => store.put("good", "{}"))
    const refused = audit.commit("grant", { number: 2 }, () => {
      store.put("bad", "{}")
      throw new MvmError("state", "no")
    })
    expect((await failure(() => refused)).code).toBe("state")
    expect(store.all()).toEqual([{ key: "good", body: "{}" }])
    expect(audit.log.list().map((row) => row.subject["number"])).toEqual([1])
  })
})
