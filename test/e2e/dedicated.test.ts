/**
 * @module test/e2e/dedicated
 *
 * Memory of a channel's own, plugged into two real VMs (one of each machine type) beside a third that takes devices as
 * well and whose root does what it can; and one whose kernel takes none.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync, readdirSync } from "node:fs"
import { basename } from "node:path"
import type { Console } from "./console.ts"
import { Background, Managed, until } from "./managed.ts"

interface Status {
  arena: { path: string; sizeBytes: number; freeBytes: number }
  dedicated: { used: number; idle: number; ignored: number }
}

const PAIRS = ["alpha beta", "gamma beta"]

interface Probe {
  device: string
  way: string
  readMbS: number | null
  writeMbS: number | null
  problem: string | null
  isChosen: boolean
}

let mvm: Managed
let alpha: Console
let beta: Console
let gamma: Console

beforeAll(async () => {
  mvm = await Managed.start(["--arena", "16M", "--ring", "1M", "--pool", "1", "--pool-idle", "20s"])
  await mvm.vm("alpha")
  await mvm.vm("beta", { more: ["--machine", "q35"] })
  await mvm.vm("gamma", { image: "guest-attacker", memory: "1G" })
  const names = ["alpha", "beta", "gamma"]
  await mvm.linked(...names)
  alpha = await mvm.console("alpha")
  beta = await mvm.console("beta")
  gamma = await mvm.console("gamma")
  await gamma.must("bun --version")
  await mvm.learn(...names)
  await mvm.allow(...PAIRS)
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

/** Addresses of shared memory devices on the PCI bus. */
async function devices(vm: Console): Promise<string[]> {
  const list = "for d in /sys/bus/pci/devices/*; do [ $(cat $d/device) = 0x1110 ] && basename $d; done; :"
  return (await vm.must(list)).split("\n").filter(Boolean)
}

/** Files of channels' own memory that a VM's QEMU maps: no device has what it does not map. */
async function mappedBy(name: string): Promise<string[]> {
  const { arena } = await status()
  const { qemuPid } = await mvm.show(name)
  const maps = readFileSync(`/proc/${qemuPid}/maps`, "utf8")
  expect(maps).toContain(arena.path)
  return [...new Set(maps.match(new RegExp(`${arena.path}-[0-9a-f]+`, "g")))]
}

function status(): Promise<Status> {
  return mvm.json<Status>("status")
}

/** Files of memory that is some channel's own. */
async function memoryFiles(): Promise<string[]> {
  const { arena } = await status()
  return readdirSync("/dev/shm").filter((file) => file.startsWith(`${basename(arena.path)}-`))
}

/** After a change of the policy, which takes back what is kept. */
async function drained(): Promise<void> {
  await mvm.allow(...PAIRS)
  await gone()
}

async function gone(): Promise<void> {
  await until("the memory to be gone", async () => {
    const { dedicated } = await status()
    return dedicated.used === 0 && dedicated.idle === 0 && (await memoryFiles()).length === 0
  })
  expect([await devices(alpha), await devices(beta)]).toEqual([[expect.any(String)], [expect.any(String)]])
}

/** A transfer in its middle: it goes on when {@link finish} says so. */
async function underWay(name: string): Promise<{ sending: Background; receiving: Background }> {
  const receiving = await Background.start(
    beta,
    `recv-${name}`,
    `mvm guest recv alpha --quiet >/tmp/${name}.got`,
  )
  const fed = `(head -c 3000000 /usr/bin/mvm; until [ -e /tmp/${name}.go ]; do sleep 0.1; done; tail -c 3000000 /usr/bin/mvm)`
  const sending = await Background.start(
    alpha,
    `send-${name}`,
    `${fed} | mvm guest send beta --wait 60s --json`,
  )
  await until("the first half", async () => (await beta.must(`stat -c %s /tmp/${name}.got`)) === "3000000")
  return { sending, receiving }
}

async function finish(name: string): Promise<void> {
  await alpha.must(`touch /tmp/${name}.go`)
}

function isolationIn(output: string): unknown {
  return (JSON.parse(output.trim().split("\n").at(-1) ?? "null") as { isolation?: string }).isolation
}

describe("a channel with memory of its own", () => {
  test("is in no device of a third VM, whose root can neither read nor disturb it, and goes with it", async () => {
    const before = await devices(gamma)
    const { sending, receiving } = await underWay("alone")
    expect([await devices(alpha), await devices(beta), await devices(gamma)]).toEqual([
      [expect.any(String), expect.any(String)],
      [expect.any(String), expect.any(String)],
      before,
    ])
    expect(before.length).toBe(1)
    const [file] = await memoryFiles()
    expect([await mappedBy("alpha"), await mappedBy("beta"), await mappedBy("gamma")]).toEqual([
      [`/dev/shm/${file}`],
      [`/dev/shm/${file}`],
      [],
    ])
    const scribbling = await Background.start(
      gamma,
      "scribble",
      `bun /root/arena-scribble.js /sys/bus/pci/devices/${before[0]}/resource2 3`,
    )
    await until("noise in the arena", async () => {
      const arena = readFileSync((await status()).arena.path)
      return arena.subarray(0, 1 << 20).some((byte) => byte !== 0)
    })
    await finish("alone")
    const sent = await sending.end()
    expect(sent.status).toBe(0)
    expect(isolationIn(sent.output)).toBe("dedicated")
    expect(await receiving.end()).toEqual({ status: 0, output: "" })
    const digest = "(head -c 3000000 /usr/bin/mvm; tail -c 3000000 /usr/bin/mvm) | sha256sum"
    expect(await beta.must("sha256sum </tmp/alone.got")).toBe(await alpha.must(digest))
    const { output } = await scribbling.end()
    const found = JSON.parse(output) as { mappedBytes: number; rounds: number }
    expect(found).toMatchObject({ isEmpty: true, isOverwritten: true, mappedBytes: 16 << 20 })
    expect(found.rounds).toBeGreaterThan(0)
    await drained()
  }, 300_000)

  test("finds the memory of the pair's last channel there, empty and theirs alone", async () => {
    const one = await underWay("first")
    await finish("first")
    expect((await one.sending.end()).status).toBe(0)
    const kept = await devices(beta)
    expect(kept.length).toBe(2)
    const [file = "", ...others] = await memoryFiles()
    expect(others).toEqual([])
    expect(file).not.toBe("")
    expect(readFileSync(`/dev/shm/${file}`).every((byte) => byte === 0)).toBe(true)
    const two = await underWay("second")
    expect([await devices(beta), await memoryFiles()]).toEqual([kept, [file]])
    await finish("second")
    expect((await two.sending.end()).status).toBe(0)
    // Another pair gets none of it, but memory of its own: gamma's kernel finds devices like any other's.
    const receiving = await Background.start(beta, "other", "mvm guest recv gamma --quiet")
    const sending = await Background.start(
      gamma,
      "other",
      "echo other | mvm guest send beta --wait 30s --json",
    )
    const other = await sending.end()
    expect([other.status, isolationIn(other.output)]).toEqual([0, "dedicated"])
    expect(await receiving.end()).toEqual({ status: 0, output: "other" })
    const [own] = await mappedBy("gamma")
    expect(own).not.toBe(`/dev/shm/${file}`)
    expect((await devices(gamma)).length).toBe(2)
    // After its time it goes by itself.
    await gone()
  }, 300_000)

  test("loses it in both VMs when the operator ends it, though a command that stands still has it mapped", async () => {
    const { sending, receiving } = await underWay("revoked")
    await beta.must("kill -STOP $(pidof mvm | tr ' ' '\\n' | sort -n | tail -n 1)")
    const [channel] = await mvm.json<{ id: string }[]>("channel", "list")
    await mvm.must("channel", "close", channel!.id)
    await finish("revoked")
    expect((await sending.end()).status).toBe(7)
    await until("the device to be gone from both", async () => {
      return (await devices(alpha)).length === 1 && (await devices(beta)).length === 1
    })
    expect(await memoryFiles()).toEqual([])
    await beta.must("kill -CONT $(pidof mvm)")
    expect((await receiving.end()).status).toBe(7)
    await drained()
  }, 300_000)

  test("goes on when the MVM is killed and starts again, which takes the memory back when it is over", async () => {
    const { sending, receiving } = await underWay("restart")
    await mvm.killServe()
    await mvm.startServe()
    await mvm.linked("alpha", "beta")
    expect((await status()).dedicated.used).toBe(1)
    await finish("restart")
    expect((await sending.end()).status).toBe(0)
    expect((await receiving.end()).status).toBe(0)
    await drained()
  }, 300_000)

  test("ends at both ends when a guest throws the device out by itself", async () => {
    const { sending, receiving } = await underWay("thrown")
    const device = (await devices(beta)).find((address) => !address.startsWith("0000:00:"))
    const slot = `for s in /sys/bus/pci/slots/*; do [ "$(cat $s/address)" = ${device?.replace(/\.\d$/, "")} ] && echo 0 >$s/power; done; :`
    await beta.must(slot)
    await finish("thrown")
    expect([(await sending.end()).status, (await receiving.end()).status]).toEqual([3, 3])
    await drained()
  }, 300_000)
})

/** Another agent in alpha, which maps as it is told. @returns what undoes it */
async function agentThatMaps(way: string): Promise<() => Promise<void>> {
  // The loop of init that starts the agent stands still meanwhile.
  const loop = await alpha.must(
    "cut -d ' ' -f 4 /proc/$(pidof mvm | tr ' ' '\\n' | sort -n | head -n 1)/stat",
  )
  await alpha.must(`kill -STOP ${loop}; killall mvm; sleep 1`)
  const agent = await Background.start(alpha, `agent-${way}`, `mvm guest agent --map ${way}`)
  const how = way === "devmem" ? "/dev/mem" : way
  await until("the agent", async () => (await mvm.show("alpha")).mapping.startsWith(`${how} of `))
  return async () => {
    await alpha.must("killall mvm")
    await agent.end()
    await until("the agent to be gone", async () => (await mvm.show("alpha")).link === "down")
    await alpha.must(`kill -CONT ${loop}`)
    await mvm.linked("alpha")
  }
}

describe("the agent of a VM", () => {
  test("measures every way to map the arena and a plugged device, and takes one of them for each", async () => {
    const { mappings } = JSON.parse(await alpha.must("mvm guest status --json")) as { mappings: Probe[] }
    const ways = ["resource2", "resource2_wc", "devmem"]
    const [arena] = await devices(alpha)
    const ofArena = mappings.filter(({ device }) => device === arena)
    const ofPlugged = mappings.filter(({ device }) => device !== arena)
    for (const found of [ofArena, ofPlugged]) {
      expect(found.map(({ way }) => way)).toEqual(ways)
      expect(found.filter(({ isChosen }) => isChosen).length).toBe(1)
      for (const { readMbS, writeMbS, problem } of found) {
        expect(problem).toBeNull()
        expect(readMbS).toBeGreaterThan(0)
        expect(writeMbS).toBeGreaterThan(0)
      }
    }
  })

  test.each(["resource2_wc", "devmem"])(
    "maps by %s where it is told so, and both kinds of memory work",
    async (way) => {
      const undo = await agentThatMaps(way)
      for (const isolation of ["dedicated", "arena"]) {
        await mvm.allow(`alpha beta ${isolation}`, "gamma beta")
        const receiving = await Background.start(
          beta,
          `${way}-${isolation}`,
          "mvm guest recv alpha --quiet | wc -c",
        )
        const name = `send-${way}-${isolation}`
        const sending = await Background.start(
          alpha,
          name,
          "head -c 3000000 /usr/bin/mvm | mvm guest send beta --wait 60s --json",
        )
        const sent = await sending.end()
        expect([sent.status, isolationIn(sent.output)]).toEqual([0, isolation])
        expect((await receiving.end()).output).toBe("3000000")
      }
      await undo()
      await drained()
    },
    300_000,
  )
})

describe("a rule that demands it", () => {
  test("allows nothing to a VM whose kernel takes no devices, and says so", async () => {
    await mvm.vm("delta", { more: ["--append", "acpiphp.disable=1"] })
    await mvm.linked("delta")
    await mvm.learn("delta")
    await mvm.allow("delta beta dedicated", "alpha beta")
    const receiving = await Background.start(beta, "refused", "timeout 30 mvm guest recv delta --quiet")
    const delta = await mvm.console("delta")
    const { status: refused } = await delta.run("echo x | mvm guest send beta --wait 20s")
    expect(refused).toBe(6)
    const rows = await mvm.json<{ message: string }[]>("audit", "list", "--kind", "refused")
    expect(rows.at(-1)?.message).toContain(
      'demands isolation = "dedicated", and memory that is plugged into delta does not reach it',
    )
    await receiving.end()
    await mvm.must("vm", "stop", "delta", "--force")
  }, 300_000)
})

describe("a guest that ignores the request to let go", () => {
  test("is recorded, and keeps memory that is nobody else's; later channels use the arena", async () => {
    const { sending, receiving } = await underWay("ignored")
    // The event by which the guest would hear of it.
    await alpha.must("echo disable >/sys/firmware/acpi/interrupts/gpe01")
    const [channel] = await mvm.json<{ id: string }[]>("channel", "list")
    await mvm.must("channel", "close", channel!.id)
    await finish("ignored")
    expect([(await sending.end()).status, (await receiving.end()).status]).toEqual([7, 7])
    await until("the audit row", async () => {
      return (await mvm.json<unknown[]>("audit", "list", "--kind", "unplug_ignored")).length > 0
    })
    const [row] = await mvm.json<{ vm: string; ends: string[] }[]>(
      "audit",
      "list",
      "--kind",
      "unplug_ignored",
    )
    expect(row).toMatchObject({ vm: "alpha", ends: ["alpha", "beta"] })
    expect([(await devices(alpha)).length, (await devices(beta)).length]).toEqual([2, 1])
    expect([await memoryFiles(), (await status()).dedicated]).toMatchObject([[], { used: 0, ignored: 1 }])
    const again = await underWay("after")
    expect((await devices(beta)).length).toBe(1)
    await finish("after")
    const sent = await again.sending.end()
    expect([sent.status, isolationIn(sent.output)]).toEqual([0, "arena"])
    // The MVM knows of it in its next life too, and hears when the guest gives in.
    await mvm.killServe()
    await mvm.startServe()
    await mvm.linked("alpha", "beta")
    expect((await status()).dedicated).toMatchObject({ used: 0, idle: 0 })
    await alpha.must("echo enable >/sys/firmware/acpi/interrupts/gpe01")
    await until("the guest to let go", async () => (await devices(alpha)).length === 1)
    await until("nothing to be left", async () => (await status()).dedicated.ignored === 0)
  }, 300_000)

  test("has its memory until it ends, and then nobody has", async () => {
    const { receiving } = await underWay("death")
    const { qemuPid } = await mvm.show("alpha")
    process.kill(qemuPid!, "SIGKILL")
    expect((await receiving.end()).status).toBe(3)
    await until("the device to be gone from beta", async () => (await devices(beta)).length === 1)
    expect(await memoryFiles()).toEqual([])
    expect((await status()).dedicated).toMatchObject({ used: 0, idle: 0, ignored: 0 })
  }, 300_000)
})
