/**
 * @module test/faults/torn.test
 *
 * The MVM's own files as a power cut or a careless copy leaves them: the MVM was killed, a file ends too early, ends
 * in garbage or is empty. What was acknowledged is there or its loss is found; what was not is nobody's; and the
 * next start either works or says in words what is wrong with which file.
 */

import { afterEach, describe, expect, test } from "bun:test"
import {
  appendFileSync,
  existsSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { TestHost } from "../integration/host.ts"

let host: TestHost | undefined
afterEach(async () => {
  await host?.end()
  host = undefined
}, 60_000)

/** A host with a transfer behind it, its MVM killed where it stands. */
async function killed(): Promise<TestHost> {
  host = await TestHost.start({ members: ["a", "b"] })
  await transfer(host)
  await host.stopServe("SIGKILL")
  return host
}

async function transfer(made: TestHost): Promise<void> {
  const content = new Uint8Array(100_000).fill(3)
  const out = join(made.folder, "delivered")
  const receiver = await made.recv("b", out)
  const sender = made.send("a", "b", content)
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
  expect(new Uint8Array(readFileSync(out))).toEqual(content)
}

async function worksAgain(made: TestHost): Promise<void> {
  await made.serve()
  await made.linked("a")
  await made.linked("b")
  await transfer(made)
  await made.free()
}

interface Verification {
  ok: boolean
  firstBad?: { reason: string }
  breaks: { reason: string }[]
}

describe("a log that ends in what was never acknowledged", () => {
  const tails: [string, (wal: string) => void][] = [
    ["garbage", (wal) => appendFileSync(wal, crypto.getRandomValues(new Uint8Array(5000)))],
    ["zeros", (wal) => appendFileSync(wal, new Uint8Array(8192))],
    ["half a frame of what it has", (wal) => appendFileSync(wal, readFileSync(wal).subarray(32, 2100))],
  ]
  for (const [what, tear] of tails) {
    test(`${what}: every acknowledged row is there, and the chain goes on`, async () => {
      const made = await killed()
      const wal = join(made.state, "mvm.db-wal")
      expect(statSync(wal).size).toBeGreaterThan(0)
      tear(wal)
      await worksAgain(made)
      expect(await made.audit("receipt")).toHaveLength(2)
      expect(await made.ask<Verification>("audit.verify")).toMatchObject({ ok: true })
    }, 60_000)
  }
})

test("rows cut off the log, which no crash does, are found missing, and channels go on", async () => {
  const made = await killed()
  const wal = join(made.state, "mvm.db-wal")
  const { size } = statSync(wal)
  // The newest frames, of 24 + 4096 bytes: the database is sound, and a little older than it was.
  truncateSync(wal, 32 + (Math.floor((size - 32) / 4120) - 4) * 4120)
  await worksAgain(made)
  const { ok, firstBad, breaks } = await made.ask<Verification>("audit.verify")
  expect(ok).toBe(false)
  expect(firstBad?.reason ?? breaks[0]?.reason).toMatch(/cut off|missing|ends/)
}, 60_000)

describe("the file with the newest head of the audit log", () => {
  const tears: [string, (path: string) => void, boolean][] = [
    ["whose older half is torn", (path) => writeFileSync(path, tornSlot(path, "older")), true],
    ["whose newer half is torn", (path) => writeFileSync(path, tornSlot(path, "newer")), true],
  ]
  for (const [what, tear, ok] of tears) {
    test(`${what} is as good as whole`, async () => {
      const made = await killed()
      tear(join(made.state, "audit.head"))
      await worksAgain(made)
      expect(await made.ask<Verification>("audit.verify")).toMatchObject({ ok })
    }, 60_000)
  }

  test("that is empty is said to be damaged, and channels go on", async () => {
    const made = await killed()
    truncateSync(join(made.state, "audit.head"), 0)
    await worksAgain(made)
    const { ok, breaks } = await made.ask<Verification>("audit.verify")
    expect({ ok, reason: breaks[0]?.reason ?? "" }).toEqual({
      ok: false,
      reason: expect.stringMatching(/head/),
    })
  }, 60_000)
})

/** Two slots of 512 bytes; a write that was cut leaves one of them torn. */
function tornSlot(path: string, which: "older" | "newer"): Uint8Array {
  const bytes = new Uint8Array(readFileSync(path))
  const sequence = (slot: number): number => {
    const text = new TextDecoder().decode(bytes.subarray(slot * 512, (slot + 1) * 512))
    return (JSON.parse(text) as { sequence: number }).sequence
  }
  const newer = sequence(0) > sequence(1) ? 0 : 1
  const slot = which === "newer" ? newer : 1 - newer
  bytes.fill(0, slot * 512 + 100, (slot + 1) * 512)
  return bytes
}

test("a note of running processes that was cut short is no reason not to start", async () => {
  const made = await killed()
  const note = join(made.state, "run", "a", "run.json")
  expect(existsSync(note)).toBe(true)
  truncateSync(note, 0)
  await worksAgain(made)
}, 60_000)

test("a vTPM that nobody noted, since the MVM died first, is ended at the next start", async () => {
  const made = await killed()
  const note = join(made.state, "run", "a", "run.json")
  const { vtpm } = JSON.parse(readFileSync(note, "utf8")) as { vtpm: { pid: number } }
  rmSync(note)
  await worksAgain(made)
  await made.until("the end of the vTPM", () => !existsSync(`/proc/${vtpm.pid}`))
}, 60_000)

test("a vTPM's state that was cut short keeps that member out, in words, and no other", async () => {
  const made = await killed()
  await made.serve()
  await made.linked("a")
  await made.linked("b")
  await made.must("vm", "stop", "a")
  const { uuid } = await made.ask<{ uuid: string }>("vm.show", { name: "a" })
  const state = join(made.state, "vms", uuid, "vtpm", "tpm2-00.permall")
  truncateSync(state, Math.floor(statSync(state).size / 2))
  const agent = made.spawn(["guest", "agent", "--local", "a"])
  expect(await agent.over()).not.toBe(0)
  expect(made.log()).toMatch(/tpm could not start|vtpm|swtpm/i)
  await made.until("a verdict on b", async () => {
    const { vms } = await made.status()
    const b = vms.find(({ name }) => name === "b")
    return b?.link === "up" && b.verdict === "trusted"
  })
}, 60_000)
