/** @module test/guest/deposits/delivered-log */

import { afterAll, expect, test } from "bun:test"
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DeliveredLog } from "../../../src/guest/deposits/delivered-log.ts"
import { toHex } from "../../../src/lib/bytes.ts"
import { random } from "../../../src/lib/crypto.ts"

const folder = mkdtempSync(join(tmpdir(), "mvm-delivered-"))
afterAll(() => rmSync(folder, { recursive: true }))

test("remembers across lives of the agent what was begun and what was delivered", () => {
  const path = join(folder, "made/with/its/folders")
  const log = DeliveredLog.open(path)
  const [one, two, three] = [random(16), random(16), random(16)].map(toHex) as [string, string, string]
  log.set(one, "begun")
  log.set(two, "begun")
  log.set(two, "delivered")
  const next = DeliveredLog.open(path)
  expect(next.memoryId).toEqual(log.memoryId)
  expect([next.stateOf(one), next.stateOf(two), next.stateOf(three)]).toEqual([
    "begun",
    "delivered",
    undefined,
  ])
  next.set(two, "settled")
  expect(DeliveredLog.open(path).stateOf(two)).toBe("settled")
  expect(statSync(path).mode & 0o777).toBe(0o600)
})

test("that is lost is another memory", () => {
  const path = join(folder, "lost")
  const { memoryId } = DeliveredLog.open(path)
  rmSync(path)
  expect(DeliveredLog.open(path).memoryId).not.toEqual(memoryId)
})

test("keeps the newest when there are very many", () => {
  const path = join(folder, "many")
  const ids = Array.from({ length: 10_000 }, (_, index) => index.toString(16).padStart(32, "0"))
  writeFileSync(
    path,
    JSON.stringify({ memoryId: "0".repeat(32), deposits: ids.map((id) => [id, "settled"]) }),
    {
      mode: 0o600,
    },
  )
  const log = DeliveredLog.open(path)
  log.set("f".repeat(32), "begun")
  expect([log.stateOf(ids[0] ?? ""), log.stateOf(ids[1] ?? "")]).toEqual([undefined, "settled"])
  expect(DeliveredLog.open(path).stateOf("f".repeat(32))).toBe("begun")
})

test.each([
  ["no JSON", "x"],
  ["another shape", "{}"],
  ["no id", '{"memoryId":"00000000000000000000000000000000","deposits":[["x","begun"]]}'],
  ["no state", `{"memoryId":"${"0".repeat(32)}","deposits":[["${"0".repeat(32)}","eaten"]]}`],
])("a damaged one (%s) is named and not taken for an empty one", (_, text) => {
  const path = join(folder, "damaged")
  writeFileSync(path, text, { mode: 0o600 })
  expect(() => DeliveredLog.open(path)).toThrow("is damaged")
  expect(readFileSync(path, "utf8")).toBe(text)
})

test("one that others can read is refused", () => {
  const path = join(folder, "open")
  DeliveredLog.open(path)
  chmodSync(path, 0o644)
  expect(() => DeliveredLog.open(path)).toThrow("other users can reach")
})
