/** @module test/mvm/audit */

import { describe, expect, test } from "bun:test"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { random } from "../../../src/lib/crypto.ts"
import { verifyExport } from "../../../src/mvm/state/audit-chain.ts"
import { AuditHeadFile } from "../../../src/mvm/state/audit-head.ts"
import { type AuditLog, openAudit } from "../../../src/mvm/state/audit.ts"
import { openRegistry, type Registry } from "../../../src/mvm/state/registry.ts"
import type { StateDir } from "../../../src/mvm/state/state-dir.ts"
import { closeLater, failure, sampleVm, scratchState } from "../scratch-state.ts"

interface Scratch {
  state: StateDir
  registry: Registry
  log: AuditLog
}

/** A log with `rows` rows, as after a start of the MVM. */
async function scratchLog(rows = 0): Promise<Scratch> {
  const state = await scratchState()
  const registry = openRegistry(state)
  closeLater(() => registry.close())
  const log = openAudit(state, registry)
  log.appendMany(
    Array.from({ length: rows }, (_, index) => ({ kind: "grant", subject: { asker: `vm${index}`, index } })),
  )
  return { state, registry, log }
}

/** Changes the table as somebody with sqlite and no key would. */
function sql({ registry }: Scratch, text: string, ...values: (string | number | Uint8Array)[]): void {
  registry.database.prepare(text).run(...values)
}

describe("the audit log", () => {
  test("numbers its rows and gives them back, newest first", async () => {
    const { log } = await scratchLog()
    const first = log.append("vm_create", { vm: "web", size: 2n ** 60n, key: Uint8Array.of(1) })
    const more = log.appendMany([
      { kind: "grant", subject: { asker: "web", answerer: "db" } },
      { kind: "receipt", subject: { by: "db", peer: "web", content: null } },
    ])
    expect([first.sequence, ...more.map((head) => head.sequence)]).toEqual([1, 2, 3])
    expect(log.head()).toEqual(more[1]!)
    const rows = log.list()
    expect(rows.map((row) => row.kind)).toEqual(["receipt", "grant", "vm_create"])
    expect(rows[2]!.subject).toEqual({ vm: "web", size: String(2n ** 60n), key: "01" })
    expect(log.appendMany([])).toEqual([])
    expect(await log.verify()).toEqual({ ok: true, rows: 3, head: log.head(), breaks: [] })
  })

  test("is filtered by VM, kind, time and number", async () => {
    const { log } = await scratchLog()
    const at = (timeMs: number, kind: string, subject: Record<string, string>) => {
      log.appendMany([{ kind, subject }], timeMs)
    }
    at(10, "vm_create", { vm: "web", uuid: "u-1" })
    at(20, "grant", { asker: "db", answerer: "web" })
    at(30, "receipt", { by: "db", peer: "host" })
    at(40, "note", { text: "web" })
    const found = (filter: Parameters<AuditLog["list"]>[0]) => log.list(filter).map((row) => row.sequence)
    expect(found({ vm: "web" })).toEqual([2, 1])
    expect(found({ vm: "u-1" })).toEqual([1])
    expect(found({ vm: "db", kind: "receipt" })).toEqual([3])
    expect(found({ sinceMs: 20, untilMs: 30 })).toEqual([3, 2])
    expect(found({ limit: 1 })).toEqual([4])
    expect(found({ vm: "x' OR 1" })).toEqual([])
  })

  test("writes all rows of a commit or none", async () => {
    const { log } = await scratchLog(1)
    const bad = [
      { kind: "fine", subject: {} },
      { kind: "Not Fine", subject: {} },
    ]
    expect((await failure(() => log.appendMany(bad))).code).toBe("config")
    expect(log.head().sequence).toBe(1)
    expect((await log.verify()).ok).toBe(true)
  })

  test("joins a transaction around it, and leaves with it", async () => {
    const scratch = await scratchLog(1)
    const { registry, log } = scratch
    const vm = sampleVm("web")
    const undone = () =>
      registry.database.transaction(() => {
        registry.insertVm(vm)
        log.append("vm_create", { vm: "web" })
        throw new Error("undo")
      })
    expect(undone).toThrow("undo")
    expect([log.head().sequence, registry.getVm("web")]).toEqual([1, undefined])
    expect((await log.verify()).ok).toBe(true)
    registry.database.transaction(() => {
      registry.insertVm(vm)
      log.append("vm_create", { vm: "web" })
    })
    expect(openAudit(scratch.state, registry).head().sequence).toBe(2)
    expect((await log.verify()).ok).toBe(true)
  })

  test("goes on over restarts with one unbroken chain", async () => {
    const { state, registry, log } = await scratchLog(3)
    const again = openAudit(state, registry)
    again.append("mvm_start", {})
    expect(await again.verify()).toMatchObject({ ok: true, rows: 4 })
    expect(verifyExport(again.exportRows(), state.identity.publicKey, log.head())).toMatchObject({
      ok: true,
      rows: 4,
    })
  })

  test("exports lines that verify offline, from the start or from the middle", async () => {
    const { state, log } = await scratchLog(600)
    const all = [...log.exportRows()]
    expect(all.length).toBe(600)
    expect(verifyExport(all, state.identity.publicKey, log.head()).ok).toBe(true)
    const part = [...log.exportRows(300)]
    expect(part.length).toBe(301)
    expect(part).toEqual(all.slice(299))
    expect([...log.exportRows(601)]).toEqual([])
  })
})

describe("tampering with the table", () => {
  const changes: [string, string, (string | number | Uint8Array)[], number][] = [
    ["a time", "UPDATE audit SET time_ms = time_ms + 1 WHERE sequence = 3", [], 3],
    ["a kind", "UPDATE audit SET kind = 'refused' WHERE sequence = 3", [], 3],
    ["a body", "UPDATE audit SET body = replace(body, 'vm2', 'vm9') WHERE sequence = 3", [], 3],
    ["a space in a body", "UPDATE audit SET body = body || ' ' WHERE sequence = 3", [], 3],
    ["a hash", "UPDATE audit SET hash = ? WHERE sequence = 3", [random(32)], 3],
    ["the length of a hash", "UPDATE audit SET hash = x'00' WHERE sequence = 3", [], 3],
    ["a signature", "UPDATE audit SET signature = ? WHERE sequence = 3", [random(64)], 3],
    ["a number", "UPDATE audit SET sequence = 33 WHERE sequence = 3", [], 3],
    ["a row less", "DELETE FROM audit WHERE sequence = 3", [], 3],
    ["the first row less", "DELETE FROM audit WHERE sequence = 1", [], 1],
    ["the last row less", "DELETE FROM audit WHERE sequence = 5", [], 5],
    ["all rows less", "DELETE FROM audit", [], 1],
  ]
  for (const [what, text, values, bad] of changes) {
    test(`is found: ${what}`, async () => {
      const scratch = await scratchLog(5)
      sql(scratch, text, ...values)
      const result = await scratch.log.verify()
      expect([result.ok, result.firstBad?.sequence, result.rows]).toEqual([false, bad, bad - 1])
    })
  }

  test("is found: two rows changed places", async () => {
    const scratch = await scratchLog(5)
    for (const [from, to] of [
      [2, 99],
      [3, 2],
      [99, 3],
    ]) {
      sql(scratch, "UPDATE audit SET sequence = ? WHERE sequence = ?", to!, from!)
    }
    expect((await scratch.log.verify()).firstBad?.sequence).toBe(2)
  })

  test("is found: a row of another MVM's log", async () => {
    const [scratch, other] = [await scratchLog(5), await scratchLog(6)]
    const row = other.registry.database
      .prepare<{ hash: Uint8Array; signature: Uint8Array; body: string }>(
        "SELECT * FROM audit WHERE sequence = 6",
      )
      .get()!
    sql(scratch, "INSERT INTO audit VALUES (6, 1, 'grant', ?, ?, ?)", row.body, row.hash, row.signature)
    expect((await scratch.log.verify()).firstBad?.sequence).toBe(6)
  })
})

describe("the head file", () => {
  test("tells, at the next start and ever after, that rows were cut off", async () => {
    const scratch = await scratchLog(5)
    const known = scratch.log.head()
    sql(scratch, "DELETE FROM audit WHERE sequence > 3")
    const log = openAudit(scratch.state, scratch.registry)
    const [row] = log.list({ kind: "audit_break" })
    expect(row!.subject).toMatchObject({ reason: "rows 4 to 5 were cut off", knownSequence: 5 })
    expect(row!.subject["knownHash"]).toBe(known.hash.toHex())
    log.append("grant", {})
    log.append("grant", {})
    const result = await openAudit(scratch.state, scratch.registry).verify()
    expect(result).toMatchObject({ ok: false, rows: 6 })
    expect(result.firstBad).toBeUndefined()
    expect(result.breaks).toEqual([{ sequence: 4, reason: "rows 4 to 5 were cut off" }])
  })

  test("tells that the whole database was taken away", async () => {
    const { state, registry } = await scratchLog(5)
    registry.database.prepare("DELETE FROM audit").run()
    const log = openAudit(state, registry)
    expect(log.list({ kind: "audit_break" }).length).toBe(1)
  })

  test("is missed when it is removed, broken, or signed by nobody we know", async () => {
    const others = readFileSync((await scratchLog(2)).state.auditHeadFile)
    const attacks: ((file: string) => void)[] = [
      (file) => rmSync(file),
      (file) => writeFileSync(file, ""),
      (file) => writeFileSync(file, "{}"),
      (file) => writeFileSync(file, random(5000)),
      (file) => writeFileSync(file, others),
      (file) => {
        const text = readFileSync(file, "utf8")
        writeFileSync(file, text.replaceAll(/"sequence":[0-9]/g, '"sequence":1'))
      },
    ]
    for (const attack of attacks) {
      const { state, registry, log } = await scratchLog(2)
      attack(state.auditHeadFile)
      expect((await log.verify()).firstBad?.sequence).toBe(3)
      const again = openAudit(state, registry)
      expect(again.list({ kind: "audit_break" }).length).toBe(1)
      expect((await again.verify()).breaks.length).toBe(1)
    }
  })

  test("may lag behind by what a crash left, and catches up", async () => {
    const { state, registry, log } = await scratchLog(2)
    const before = readFileSync(state.auditHeadFile)
    log.append("grant", {})
    writeFileSync(state.auditHeadFile, before)
    expect((await log.verify()).ok).toBe(true)
    expect((await openAudit(state, registry).verify()).ok).toBe(true)
    expect(new AuditHeadFile(state.auditHeadFile).read()).toMatchObject({ sequence: 3 })
  })

  test("keeps a good head when a power cut spoils the slot that was being written", async () => {
    const { state, registry, log } = await scratchLog(2)
    log.append("grant", {})
    log.append("grant", {})
    const whole = readFileSync(state.auditHeadFile)
    expect(whole.length).toBe(1024)
    for (const slot of [0, 1]) {
      const bytes = Uint8Array.from(whole)
      bytes.fill(0, slot * 512, slot * 512 + 300)
      writeFileSync(state.auditHeadFile, bytes)
      expect((await log.verify()).ok).toBe(true)
      expect(openAudit(state, registry).list({ kind: "audit_break" })).toEqual([])
    }
  })
})
