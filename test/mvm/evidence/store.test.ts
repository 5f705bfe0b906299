import { describe, expect, test } from "bun:test"
import { appendFileSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { utf8 } from "../../../src/lib/bytes.ts"
import { Log } from "../../../src/lib/log.ts"
import type { ChannelEvidence } from "../../../src/mvm/evidence/record.ts"
import { EvidenceStore } from "../../../src/mvm/evidence/store.ts"
import { failure, scratchFolder } from "../scratch-state.ts"

const QUIET = new Log({ level: "error", format: "text" })

function decision(number: number): ChannelEvidence {
  const channel = number.toString(16).padStart(32, "0")
  return { channel, timeMs: number, decision: null, decisionSignature: null, refused: "x", ends: [] }
}

describe("the evidence of decisions", () => {
  test("is found by the beginning of the channel's id, also by a store opened later", async () => {
    const folder = scratchFolder()
    const store = new EvidenceStore(folder, QUIET)
    const wanted = { ...decision(1), channel: "abcd".padEnd(32, "0") }
    for (const evidence of [decision(2), wanted, decision(3)]) store.record(evidence)
    expect(await store.find("abc")).toEqual(wanted)
    expect(await new EvidenceStore(folder, QUIET).find("abcd")).toEqual(wanted)
    expect((await failure(() => store.find("000000"))).message).toContain("more than one")
    expect((await failure(() => store.find("ffff"))).code).toBe("not_found")
  })

  test("is bounded: the newest stay, the oldest go", async () => {
    const folder = scratchFolder()
    const store = new EvidenceStore(folder, QUIET)
    for (let number = 0; number < 2600; number += 1) {
      store.record(decision(number))
      if (number % 100 === 99) await store.flush()
    }
    await store.flush()
    expect(readdirSync(folder).filter((name) => name.startsWith("decisions-"))).toHaveLength(3)
    expect((await store.find(decision(2599).channel)).timeMs).toBe(2599)
    expect((await store.find(decision(1600).channel)).timeMs).toBe(1600)
    expect((await failure(() => store.find(decision(0).channel))).code).toBe("not_found")
  })

  test("outlives a line that a crash cut off", async () => {
    const folder = scratchFolder()
    const store = new EvidenceStore(folder, QUIET)
    store.record(decision(7))
    await store.flush()
    appendFileSync(join(folder, "decisions-1.jsonl"), '{"channel":"00')
    const later = new EvidenceStore(folder, QUIET)
    later.record(decision(8))
    for (const number of [7, 8]) expect((await later.find(decision(number).channel)).timeMs).toBe(number)
  })
})

describe("the logs of boots", () => {
  const uuid = crypto.randomUUID()

  test("are kept piece by piece, and taken up again from the start", async () => {
    const store = new EvidenceStore(scratchFolder(), QUIET)
    const boot = { uuid, resetCount: 3 }
    store.addLog(boot, 0, utf8("one"))
    store.addLog(boot, 3, utf8("two"))
    store.addLog(boot, 0, utf8("one"))
    expect(store.readLog(boot, 6)).toEqual(utf8("onetwo"))
    expect(store.readLog(boot, 3)).toEqual(utf8("one"))
    expect((await failure(() => store.readLog(boot, 7))).code).toBe("not_found")
    expect((await failure(() => store.readLog({ uuid, resetCount: 4 }, 1))).code).toBe("not_found")
  })

  test("a piece behind a gap is not kept, so that no log is kept that never was", async () => {
    const store = new EvidenceStore(scratchFolder(), QUIET)
    const boot = { uuid, resetCount: 5 }
    store.addLog(boot, 0, utf8("one"))
    store.addLog(boot, 9, utf8("two"))
    expect((await failure(() => store.readLog(boot, 12))).code).toBe("not_found")
  })

  test("are bounded for each VM, however often it boots", () => {
    const folder = scratchFolder()
    const store = new EvidenceStore(folder, QUIET)
    for (let resetCount = 0; resetCount < 40; resetCount += 1)
      store.addLog({ uuid, resetCount }, 0, utf8("x"))
    expect(readdirSync(join(folder, "boots"))).toHaveLength(16)
  })
})
