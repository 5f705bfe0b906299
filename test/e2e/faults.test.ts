/**
 * @module test/e2e/faults
 *
 * QEMU is killed, or stands still for longer than a lease, under a transfer between two real VMs: at either end, in
 * the middle and while the channel is opened. What the processes of local endpoints do is in test/faults. Before that,
 * the same VMs pass data back and forth without a fault: the bounded form of scripts/soak --vms.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { RpcClient } from "../../src/platform/json-rpc.ts"
import { identifyProcess, isRunning } from "../../src/platform/process.ts"
import { descriptorsOf } from "../integration/processes.ts"
import { soakBetween } from "../soak/vms.ts"
import type { Console } from "./console.ts"
import { Background, Managed, until, type VmState } from "./managed.ts"

/** The same file in every VM. */
const FILE = "/usr/bin/mvm"
const BYTES = 3_000_000
const LEASE_MS = 12_000
/** A console command to notice it, and a machine that does other things beside. */
const NOTICE_MS = 4000
const SOAK_MINUTES = 0.5
const FROZEN_MS = LEASE_MS + 6000
/** Files of the moment. */
const DESCRIPTOR_SLACK = 8

type Name = "alpha" | "beta"
const NAMES: readonly Name[] = ["alpha", "beta"]

let mvm: Managed
const vms = {} as Record<Name, Console>
let count = 0
/** Files the MVM has open while both VMs run and nothing else does. */
let descriptors = 0

beforeAll(async () => {
  mvm = await Managed.start(["--ring", "1M", "--pool", "0", "--lease", `${LEASE_MS}ms`])
  for (const name of NAMES) await mvm.vm(name, { more: ["--remeasure", "3s"] })
  await mvm.linked(...NAMES)
  for (const name of NAMES) vms[name] = await mvm.console(name)
  await mvm.learn(...NAMES)
  await mvm.allow("alpha beta", "beta alpha")
  await worksAgain(0)
  descriptors = descriptorsOf(mvm.servePid)
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

interface Status {
  channels: number
  arena: { sizeBytes: number; freeBytes: number }
  dedicated: { used: number; idle: number; ignored: number }
}

const receipts = async (): Promise<number> =>
  (await mvm.json<unknown[]>("audit", "list", "--kind", "receipt")).length

const ask = async <T>(method: string): Promise<T> => {
  const client = await RpcClient.connect(join(mvm.state, "control.sock"))
  return client.call<T>(method, {}).finally(() => client.close())
}

/** Waits, without a process for each look, until a channel is in one of `states`. */
async function channelIs(...states: string[]): Promise<void> {
  const deadline = performance.now() + 60_000
  while (performance.now() < deadline) {
    const channels = await ask<{ state: string }[]>("channel.list")
    if (channels.some(({ state }) => states.includes(state))) return
    await Bun.sleep(2)
  }
  throw new Error(`no channel was ${states.join(" or ")}`)
}

interface UnderWay {
  sending: Background
  receiving: Background
  out: string
}

/** A transfer from alpha to beta that does not end: its input is held open by a process beside it. */
async function begin(): Promise<UnderWay> {
  count += 1
  const [pipe, out] = [`/tmp/in${count}`, `/tmp/out${count}`]
  const receiving = await Background.start(vms.beta, `r${count}`, `mvm guest recv alpha >${out}`)
  const fed = `mkfifo ${pipe}; { head -c ${BYTES} ${FILE}; sleep 600; } >${pipe} &`
  const sending = await Background.start(
    vms.alpha,
    `s${count}`,
    `${fed}\nmvm guest send beta --wait 60s <${pipe}`,
  )
  return { sending, receiving, out }
}

async function middle({ out }: UnderWay): Promise<void> {
  await until("the content", async () => (await vms.beta.must(`stat -c %s ${out}`)) === String(BYTES))
}

async function isBeginning({ out }: UnderWay): Promise<void> {
  const length = Number(await vms.beta.must(`stat -c %s ${out}`))
  expect(length).toBeLessThanOrEqual(BYTES)
  await vms.beta.must(`head -c ${length} ${FILE} | cmp -s - ${out}`)
}

/** QEMU of `name` dies; its processes, sockets and memory go with it. */
async function kill(name: Name): Promise<VmState> {
  const before = await mvm.show(name)
  process.kill(before.qemuPid!, "SIGKILL")
  return before
}

async function isGone({ name, vtpmPid, qemuPid }: VmState): Promise<void> {
  await until("the VM to be stopped", async () => (await mvm.show(name)).state === "stopped")
  const left = [vtpmPid!, qemuPid!].map((pid) => identifyProcess(pid)).filter((id) => id && isRunning(id))
  expect(left).toEqual([])
  // A name that nobody listens at is replaced when the VM starts.
  const run = join(mvm.state, "run", name)
  expect(readFileSync("/proc/net/unix", "utf8")).not.toContain(`${run}/`)
}

async function nothingIsHeld(): Promise<void> {
  await until("nothing to be held", async () => {
    const { channels, arena, dedicated } = await mvm.json<Status>("status")
    const held = arena.sizeBytes - arena.freeBytes
    return channels + held + dedicated.used + dedicated.idle + dedicated.ignored === 0
  })
}

async function bootAgain(name: Name): Promise<void> {
  await mvm.must("vm", "start", name)
  await mvm.linked(name)
  vms[name] = await mvm.console(name)
}

/** The next transfer is whole, has the one receipt that there is since `before`, and the audit chain holds. */
async function worksAgain(before: number): Promise<void> {
  await mvm.linked(...NAMES)
  const receiving = await Background.start(vms.beta, `again${count}`, "mvm guest recv alpha | sha256sum")
  const sent = await vms.alpha.run(`head -c 100000 ${FILE} | mvm guest send beta --wait 60s --quiet`)
  expect(sent).toEqual({ status: 0, output: "" })
  const digest = await vms.alpha.must(`head -c 100000 ${FILE} | sha256sum`)
  expect((await receiving.end()).output).toContain(digest)
  expect(await receipts()).toBe(before + 1)
  expect((await mvm.run("audit", "verify")).status).toBe(0)
  await nothingIsHeld()
  if (descriptors > 0) expect(descriptorsOf(mvm.servePid)).toBeLessThan(descriptors + DESCRIPTOR_SLACK)
}

/** Its status, and how long after `sinceMs` the VM said so. */
async function told(command: Background, sinceMs: number): Promise<{ status: number; output: string }> {
  const { status, output } = await command.end()
  const ms = performance.now() - sinceMs
  console.log(`status ${status} after ${Math.round(ms)} ms: ${output.trim().split("\n").at(-1)}`)
  expect(ms).toBeLessThan(LEASE_MS + NOTICE_MS)
  return { status, output }
}

test("two VMs pass data of all sizes back and forth: every digest is right, and memory stays flat", async () => {
  const result = await soakBetween(mvm, vms, SOAK_MINUTES)
  console.log(JSON.stringify(result))
  expect(result.errors).toEqual([])
  expect(result.bytes).toBeGreaterThan(8_000_000)
  expect([result.mvm.isFlat, result.agents.isFlat]).toEqual([true, true])
  await nothingIsHeld()
}, 300_000)

describe("QEMU that is killed", () => {
  test("at the sender, in the middle: the receiver is told with status 3, and has a beginning", async () => {
    const before = await receipts()
    const transfer = await begin()
    await middle(transfer)
    const dead = await kill("alpha")
    const { status, output } = await told(transfer.receiving, performance.now())
    expect([status, output]).toEqual([3, expect.stringContaining("alpha ended") as string])
    await isBeginning(transfer)
    await isGone(dead)
    await nothingIsHeld()
    await bootAgain("alpha")
    await worksAgain(before)
  }, 300_000)

  test("at the receiver, in the middle: the sender is told with status 3, and nothing is receipted", async () => {
    const before = await receipts()
    const transfer = await begin()
    await middle(transfer)
    const dead = await kill("beta")
    const { status, output } = await told(transfer.sending, performance.now())
    expect([status, output]).toEqual([3, expect.stringContaining("beta ended") as string])
    await isGone(dead)
    await nothingIsHeld()
    await bootAgain("beta")
    await worksAgain(before)
  }, 300_000)

  test("at the receiver, while the channel is opened: the sender is told with status 3", async () => {
    const before = await receipts()
    const [transfer] = await Promise.all([begin(), channelIs("challenged", "granted")])
    const dead = await kill("beta")
    const { status } = await told(transfer.sending, performance.now())
    expect(status).toBe(3)
    await isGone(dead)
    await nothingIsHeld()
    await bootAgain("beta")
    await worksAgain(before)
  }, 300_000)

  test("at the sender, while the channel is opened: the receiver has nothing, and none says it has", async () => {
    const before = await receipts()
    const [transfer] = await Promise.all([begin(), channelIs("challenged", "granted")])
    const dead = await kill("alpha")
    await isGone(dead)
    // One that was granted the channel ends with it; one that was only challenged waits on for another asker.
    await vms.beta.must(
      "kill -INT $(for p in $(pidof mvm); do grep -q recv /proc/$p/cmdline && echo $p; done) || true",
    )
    const { status } = await transfer.receiving.end()
    expect([3, 130]).toContain(status)
    expect(await vms.beta.must(`stat -c %s ${transfer.out}`)).toBe("0")
    await nothingIsHeld()
    await bootAgain("alpha")
    await worksAgain(before)
  }, 300_000)
})

describe("QEMU that stands still for longer than a lease", () => {
  for (const [frozen, end] of [
    ["beta", "receiver"],
    ["alpha", "sender"],
  ] as const) {
    test(`at the ${end}: the other end is over with status 7 within the lease, its own when it goes on`, async () => {
      const before = await receipts()
      const transfer = await begin()
      await middle(transfer)
      const { qemuPid } = await mvm.show(frozen)
      const [other, own] =
        frozen === "beta" ? [transfer.sending, transfer.receiving] : [transfer.receiving, transfer.sending]
      const sinceMs = performance.now()
      process.kill(qemuPid!, "SIGSTOP")
      try {
        const { status, output } = await told(other, sinceMs)
        expect([status, output]).toEqual([7, expect.stringContaining("lease") as string])
        await Bun.sleep(FROZEN_MS - (performance.now() - sinceMs))
      } finally {
        process.kill(qemuPid!, "SIGCONT")
      }
      expect([3, 7]).toContain((await own.end()).status)
      await isBeginning(transfer)
      await vms.alpha.run("kill $(pidof sleep)")
      await worksAgain(before)
    }, 300_000)
  }
})
