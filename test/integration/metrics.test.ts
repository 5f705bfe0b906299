/**
 * @module test/integration/metrics
 *
 * A scrape of a running MVM.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { join } from "node:path"
import { readExposition, type ReadFamily } from "../mvm/metrics/exposition-parser.ts"
import { TestHost, rule } from "./host.ts"

let host: TestHost
let address: string
const CONTENT = new Uint8Array(300_000)

beforeAll(async () => {
  host = await TestHost.start({
    members: ["a", "b"],
    serve: ["--metrics", "127.0.0.1:0"],
  })
  address = `127.0.0.1:${/ metrics hostname=127\.0\.0\.1 port=(\d+)/.exec(host.log())?.[1]}`
}, 60_000)
afterAll(() => host.end(), 60_000)

async function scrape(): Promise<Map<string, ReadFamily>> {
  const answer = await fetch(`http://${address}/metrics`)
  expect(answer.status).toBe(200)
  expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8")
  return readExposition(await answer.text())
}

function value(families: Map<string, ReadFamily>, name: string, labels: Record<string, string> = {}): number {
  const base = name.replace(/_(bucket|sum|count)$/, "")
  const family = families.get(name) ?? families.get(base)
  const found = family?.samples.find(
    (sample) => sample.name === name && Bun.deepEquals(sample.labels, labels),
  )
  if (!found) throw new Error(`no ${name} ${JSON.stringify(labels)}`)
  return found.value
}

test("a scrape is well formed and says what is and what was", async () => {
  const before = await scrape()
  expect(value(before, "mvm_vms", { state: "running" })).toBe(2)
  expect(value(before, "mvm_links")).toBe(2)
  expect(value(before, "mvm_verdicts", { verdict: "trusted" })).toBe(2)
  expect(value(before, "mvm_policy_valid")).toBe(1)
  expect(value(before, "mvm_dedicated_limit_bytes")).toBeGreaterThan(0)
  expect([value(before, "mvm_deposits"), value(before, "mvm_deposited_bytes")]).toEqual([0, 0])
  expect(value(before, "mvm_arena_size_bytes")).toBe(64 * 2 ** 20)
  expect(value(before, "process_resident_memory_bytes")).toBeGreaterThan(10 * 2 ** 20)
  expect(value(before, "process_start_time_seconds")).toBeGreaterThan(Date.now() / 1000 - 600)
  await host.policy(rule('service = "*"', 'from = "*"', 'to = "*"', "deposit = true"), "a", "b", "allow")
  expect((await host.runWith({ stdin: CONTENT }, "guest", "deposit", "--local", "a", "b")).status).toBe(0)
  const deposited = await scrape()
  expect(value(deposited, "mvm_deposits")).toBe(1)
  expect(value(deposited, "mvm_deposited_bytes")).toBeGreaterThan(CONTENT.length)
  const receiver = await host.recv("b", undefined)
  expect(value(await scrape(), "mvm_offers")).toBe(value(before, "mvm_offers") + 1)
  const sender = host.send("a", "b", CONTENT)
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
  expect((await host.run("guest", "send", "--local", "a", "nobody", host.file("x", "x"))).status).toBe(3)
  const after = await scrape()
  const more = (name: string, labels?: Record<string, string>): number =>
    value(after, name, labels) - value(before, name, labels)
  expect(more("mvm_opens_total", { result: "opened" })).toBe(1)
  expect(more("mvm_opens_total", { result: "refused" })).toBe(1)
  expect(value(after, "mvm_refusals_total", { code: "no_target" })).toBe(1)
  expect(more("mvm_open_duration_seconds_count")).toBe(1)
  expect(more("mvm_content_bytes_total")).toBe(CONTENT.length)
  expect(more("mvm_receipts_total")).toBe(1)
  expect(more("mvm_appraisal_duration_seconds_count")).toBeGreaterThanOrEqual(2)
  expect(more("mvm_audit_rows_total")).toBeGreaterThanOrEqual(4)
})

test("nothing that a VM or an operator named becomes a label", async () => {
  const labels = [...(await scrape()).values()].flatMap(({ samples }) =>
    samples.flatMap((sample) => Object.values(sample.labels)),
  )
  for (const name of ["a", "b", "nobody", "default", "policy.toml:1"]) expect(labels).not.toContain(name)
  expect(labels.length).toBeLessThan(100)
})

test("a policy that broke shows", async () => {
  host.writePolicy("[[rule]]\n")
  await host.until("the broken policy", async () => value(await scrape(), "mvm_policy_valid") === 0)
})

test("an address that others could reach is refused before anything starts", async () => {
  const { status, stderr } = await host.run(
    "serve",
    "--state",
    join(host.folder, "other"),
    "--metrics",
    "0.0.0.0:0",
  )
  expect([status, stderr]).toEqual([2, expect.stringContaining("is no loopback address and no unix socket")])
})
