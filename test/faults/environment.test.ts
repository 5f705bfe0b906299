/**
 * @module test/faults/environment.test
 *
 * The machine fails, not the processes: a full disk, full shared memory, a state directory that became read-only, a
 * clock that jumps, a reader that does not read, a database that another holds. Whatever happens is said, nothing is
 * reported that did not happen, and when the cause is gone the next transfer works.
 */

import { Database } from "bun:sqlite"
import { afterEach, describe, expect, test } from "bun:test"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ALLOW_ALL, TestHost } from "../integration/host.ts"
import type { HostOptions } from "../integration/host-options.ts"
import { SmallDisk } from "./small-disk.ts"

const CONTENT = new Uint8Array(2_000_000).map((_, at) => (at * 31) ^ (at >> 8))
/** Delivered, failed here, unreachable: what honest commands end with when a machine fails. */
const HONEST = [0, 1, 3]

let host: TestHost | undefined
let disk: SmallDisk | undefined
afterEach(async () => {
  try {
    await host?.end()
  } finally {
    disk?.remove()
    host = disk = undefined
  }
}, 60_000)

async function hostOn(options: HostOptions): Promise<TestHost> {
  host = await TestHost.start({ members: ["a", "b"], ...options })
  return host
}

interface Outcome {
  sender: number
  receiver: number
  whole: boolean
}

/** One transfer from a to b; no wrong byte came out, and nobody said more than happened. */
async function transfer(made: TestHost, ...words: string[]): Promise<Outcome> {
  const out = join(made.folder, "delivered")
  const receiver = made.spawn(["guest", "recv", "--local", "b"], { stdout: out })
  await Promise.race([receiver.says("waiting for"), receiver.process.exited]).catch(() => {})
  const sender = made.send("a", "b", CONTENT, "--wait", "5s", ...words)
  const senderStatus = await sender.over()
  if (senderStatus !== 0 && receiver.process.exitCode === null) {
    // Nobody may have come for it.
    await Promise.race([receiver.process.exited, Bun.sleep(2000)])
    receiver.kill("SIGINT")
  }
  const receiverStatus = await receiver.over()
  const delivered = new Uint8Array(readFileSync(out))
  expect(Buffer.compare(delivered, CONTENT.subarray(0, delivered.length))).toBe(0)
  const whole = delivered.length === CONTENT.length
  if (senderStatus === 0 || receiverStatus === 0) expect(whole).toBe(true)
  return { sender: senderStatus, receiver: receiverStatus, whole }
}

async function worksAgain(made: TestHost): Promise<void> {
  await made.linked("a")
  await made.linked("b")
  const receipts = (await made.audit("receipt")).length
  expect(await transfer(made)).toEqual({ sender: 0, receiver: 0, whole: true })
  expect(await made.audit("receipt")).toHaveLength(receipts + 1)
  await made.free()
  expect(await made.ask("audit.verify")).toMatchObject({ ok: true })
}

describe("a full disk under the state", () => {
  test("refuses channels in words, loses no row, and everything works when there is room again", async () => {
    disk = new SmallDisk("24m")
    const made = await hostOn({ state: disk.folder("state") })
    await worksAgain(made)
    disk.fill()
    for (let round = 0; round < 3; round++) {
      const { sender, receiver } = await transfer(made)
      expect(HONEST).toContain(sender)
      expect([...HONEST, 130]).toContain(receiver)
    }
    expect(made.serving.process.exitCode).toBeNull()
    disk.empty()
    await worksAgain(made)
  }, 120_000)

  test("that fills during a transfer gives no receipt that is not on the disk", async () => {
    disk = new SmallDisk("24m")
    const made = await hostOn({ state: disk.folder("state") })
    const out = join(made.folder, "delivered")
    const receiver = await made.recv("b", out)
    const sender = made.send("a", "b", "pipe")
    const stdin = sender.process.stdin as Bun.FileSink
    stdin.write(CONTENT)
    await stdin.flush()
    await made.until("the first bytes", () => readFileSync(out).length > 0)
    disk.fill()
    await stdin.end()
    const statuses = [await sender.over(), await receiver.over()]
    disk.empty()
    const receipts = await made.audit("receipt")
    expect(receipts.length).toBe(statuses[0] === 0 ? 1 : receipts.length)
    if (receipts.length === 0) expect(statuses[0]).not.toBe(0)
    await worksAgain(made)
  }, 120_000)
})

test("full shared memory is an error in words, and no end dies of it", async () => {
  disk = new SmallDisk("20m")
  const arena = join(disk.path, "arena")
  const made = await hostOn({ serve: ["--arena", "16M", "--arena-file", arena] })
  made.writePolicy(ALLOW_ALL.replace("action", 'isolation = "arena"\naction'))
  await made.until("the policy", async () => (await made.status()).policy.state === "ok")
  await worksAgain(made)
  disk.fill()
  const { sender, whole } = await transfer(made)
  expect([sender, whole]).toEqual([1, false])
  disk.empty()
  await worksAgain(made)
}, 120_000)

test("a state directory that became read-only keeps the daemon from starting, in words, and nothing is lost", async () => {
  disk = new SmallDisk("64m")
  const made = await hostOn({ state: disk.folder("state") })
  await worksAgain(made)
  // What a vTPM has open for writing would keep the disk writable.
  for (const name of ["a", "b"]) await made.must("vm", "stop", name)
  await made.stopServe("SIGKILL")
  disk.writable(false)
  const refused = made.spawn(["serve", "--arena", "64M"])
  expect(await refused.over()).toBe(1)
  expect(refused.stderr()).toMatch(/read-only|EROFS|cannot be (written|opened)/)
  disk.writable(true)
  await made.serve()
  for (const name of ["a", "b"]) await made.agent(name)
  await worksAgain(made)
}, 120_000)

test("a clock that jumps a day ahead, then two back, during transfers changes none of them", async () => {
  const made = await hostOn({
    environment: async (folder) => {
      writeFileSync(join(folder, "clock"), "+0")
      return {
        LD_PRELOAD: "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        FAKETIME_TIMESTAMP_FILE: join(folder, "clock"),
        FAKETIME_NO_CACHE: "1",
        FAKETIME_DONT_FAKE_MONOTONIC: "1",
      }
    },
  })
  for (const [jump, days] of [
    ["+1d", 1],
    ["-1d", -1],
    ["+0", 0],
  ] as const) {
    const out = join(made.folder, "delivered")
    const receiver = await made.recv("b", out)
    const sender = made.send("a", "b", "pipe")
    const stdin = sender.process.stdin as Bun.FileSink
    stdin.write(CONTENT.subarray(0, 1_000_000))
    await stdin.flush()
    await made.until("the first bytes", () => readFileSync(out).length > 0)
    made.file("clock", jump)
    // The clock of the audit rows shows that it did jump, and a re-measurement falls behind it.
    await made.until("a measurement after the jump", async () => {
      const { vms } = await made.status()
      return vms.every(({ verdict }) => verdict === "trusted")
    })
    stdin.write(CONTENT.subarray(1_000_000))
    await stdin.end()
    expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
    expect(Buffer.compare(readFileSync(out), CONTENT)).toBe(0)
    const [row] = (await made.audit("receipt")).slice(-1) as { time: string }[]
    expect(Math.round((Date.parse(row!.time) - Date.now()) / 86_400_000) || 0).toBe(days)
  }
  await worksAgain(made)
}, 120_000)

test("a reader that does not read holds its sender up, and loses nothing", async () => {
  const made = await hostOn({})
  const out = join(made.folder, "delivered")
  const gate = join(made.folder, "gate")
  const script = `"${made.mvm}" guest recv --local b | (until [ -e ${gate} ]; do sleep 0.1; done; cat >${out})`
  const receiver = made.spawn(["-c", script], { program: "/bin/sh" })
  await receiver.says("waiting for")
  const content = new Uint8Array(30_000_000).map((_, at) => at * 13)
  const sender = made.send("a", "b", content)
  await made.until("the channel", async () => (await made.status()).channels === 1)
  // More than all buffers on the way take: the sender waits, through a re-measurement or two.
  await Bun.sleep(3000)
  expect(sender.process.exitCode).toBeNull()
  made.file("gate", "")
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
  expect(Buffer.compare(readFileSync(out), content)).toBe(0)
}, 120_000)

test("a database that somebody else holds delays or refuses, and leaves the chain whole", async () => {
  const made = await hostOn({})
  const other = new Database(join(made.state, "mvm.db"))
  other.run("PRAGMA busy_timeout = 5000")
  other.run("BEGIN IMMEDIATE")
  const held = transfer(made)
  await Bun.sleep(2500)
  other.run("ROLLBACK")
  const { sender } = await held
  expect(HONEST).toContain(sender)
  other.close()
  await worksAgain(made)
}, 120_000)
