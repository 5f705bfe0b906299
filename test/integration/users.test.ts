/**
 * @module test/integration/users
 *
 * Ordinary users of a machine: who may use its agent, what their commands get to see of the memory, and which service
 * names are theirs. The tests run as root, the users are numbers that no account has.
 */

import { beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, statSync, watch } from "node:fs"
import { join } from "node:path"
import { HANG_MS, MIB, hostForFile, type Running } from "./host.ts"
import type { RunOptions } from "./host-options.ts"

const GROUP = 61_000
const anna = { uid: 61_001, gid: GROUP }
const bert = { uid: 61_002, gid: GROUP }
const stranger = { uid: 61_003, gid: 61_003 }

// One channel in memory of its own, one in the arena: an ordinary user maps neither.
const host = hostForFile({ members: ["a", "b"], agents: { a: ["--group", String(GROUP)] } })

/** Who has the agent's group finds its socket; the files beside it stay their owner's. */
beforeAll(() => {
  for (const folder of ["", "s", "s/run", "s/run/a"]) chmodSync(join(host().folder, folder), 0o711)
}, HANG_MS)

function out(name: string): string {
  return join(host().folder, name)
}

function content(lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  for (let at = 0; at < lengthBytes; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536))
  return bytes
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex")
}

/** A command of `user` at member a's agent. */
function as(user: typeof anna, words: readonly string[], options: RunOptions = {}): Running {
  return host().spawn(["guest", ...words, "--local", "a"], { ...options, user })
}

async function statuses(...commands: Running[]): Promise<unknown[]> {
  const over = await Promise.all(commands.map((command) => command.over()))
  return over.map((status, index) => (status === 0 ? 0 : [status, commands[index]?.stderr()]))
}

/** Files of shared memory that a process maps. */
function shared(pid: number): string[] {
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")
  return [...new Set(lines.flatMap((line) => /\/dev\/shm\/mvm-\S+/.exec(line) ?? []))]
}

describe("a user of the agent's group", () => {
  test("sends and receives; its records go through the agent, which alone maps the memory", async () => {
    const sent = content(9 * MIB + 5)
    const receiver = await host().recv("b", out("sent"), "a")
    const sender = as(anna, ["send", "b", "--json"], { stdin: "pipe" })
    const stdin = sender.process.stdin as Bun.FileSink
    stdin.write(sent.subarray(0, MIB))
    await stdin.flush()
    await host().until("the first part", () => existsSync(out("sent")) && statSync(out("sent")).size === MIB)
    expect(shared(sender.pid)).toEqual([])
    expect(shared(host().agentOf("a").pid)).toHaveLength(1)
    expect(shared(receiver.pid)).toEqual(shared(host().agentOf("a").pid))
    stdin.write(sent.subarray(MIB))
    await stdin.end()
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(sha256(readFileSync(out("sent")))).toBe(sha256(sent))
    const facts = JSON.parse(sender.stderr().trim().split("\n").at(-1)!) as Record<string, unknown>
    expect(facts).toMatchObject({ transport: "memory", bytes: sent.length })
    await host().until("the agent to let go", () => shared(host().agentOf("a").pid).length === 0)
  })

  test("receives records that are longer than a frame", async () => {
    const sent = content(12 * MIB + 1)
    const receiver = as(anna, ["recv", "b"], { stdout: out("got") })
    await receiver.says("waiting for")
    const sender = host().send("b", "a", sent)
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(sha256(readFileSync(out("got")))).toBe(sha256(sent))
    await host().free()
  })

  test("is revoked, outlives a restart of the MVM, and leaves nothing behind when it dies", async () => {
    const begin = async (name: string) => {
      const receiver = await host().recv("b", out(name), "a")
      const sender = as(anna, ["send", "b"], { stdin: "pipe" })
      const stdin = sender.process.stdin as Bun.FileSink
      stdin.write(content(MIB))
      await stdin.flush()
      await host().until("the first part", () => existsSync(out(name)) && statSync(out(name)).size === MIB)
      return { receiver, sender, stdin }
    }
    const revoked = await begin("revoked")
    const [channel] = await host().json<{ id: string }[]>("channel", "list")
    await host().must("channel", "close", channel!.id)
    expect(await Promise.all([revoked.sender.over(), revoked.receiver.over()])).toEqual([7, 7])
    await host().free()
    const restarted = await begin("restarted")
    await host().stopServe("SIGKILL")
    await host().serve()
    await Promise.all([host().linked("a"), host().linked("b")])
    restarted.stdin.write(content(MIB))
    await restarted.stdin.end()
    expect(await statuses(restarted.sender, restarted.receiver)).toEqual([0, 0])
    expect(statSync(out("restarted")).size).toBe(2 * MIB)
    const killed = await begin("killed")
    killed.sender.kill("SIGKILL")
    await killed.sender.over()
    expect(await killed.receiver.over()).toBe(3)
    expect(shared(host().agentOf("a").pid)).toEqual([])
    await host().free()
  })

  test("keeps a service name as long as a command of its holds it; others are refused it, root as well", async () => {
    const holder = as(anna, ["recv", "--service", "diary"])
    await holder.says("waiting for")
    const second = as(anna, ["recv", "--service", "diary", "--quiet"])
    for (const other of [
      as(bert, ["recv", "--service", "diary"]),
      await host().spawn(["guest", "recv", "--service", "diary", "--local", "a"]),
    ]) {
      expect(await other.over()).toBe(6)
      expect(other.stderr()).toContain("service diary belongs to another user of this machine")
    }
    const own = as(bert, ["recv", "--service", "bert"])
    await own.says("waiting for")
    for (const command of [holder, second]) {
      command.kill("SIGTERM")
      await command.over()
    }
    const heir = as(bert, ["recv", "--service", "diary"])
    await heir.says("waiting for")
    for (const command of [own, heir]) {
      command.kill("SIGTERM")
      await command.over()
    }
  })
})

describe("a user outside the group", () => {
  test("is refused with status 6, and told what is missing", async () => {
    const sender = as(stranger, ["send", "b"])
    expect(await sender.over()).toBe(6)
    expect(sender.stderr()).toContain("this user may not use the agent at")
    expect(sender.stderr()).toContain("ask root to add it to the group of that socket")
  })

  test("is one that another agent, which has no group, lets in neither", async () => {
    chmodSync(join(host().state, "run/b"), 0o711)
    const sender = host().spawn(["guest", "send", "a", "--local", "b"], { user: anna })
    expect(await sender.over()).toBe(6)
  })
})

describe("an endpoint whose agent is another user than the MVM", () => {
  test("is given no memory of others: its channels are relayed", async () => {
    await host().must("vm", "create", "other", "--local")
    const run = join(host().state, "run/other")
    chmodSync(run, 0o711)
    chownSync(join(run, "link.sock"), anna.uid, anna.gid)
    mkdirSync(out("own"))
    chownSync(out("own"), anna.uid, anna.gid)
    const socket = join(out("own"), "agent.sock")
    const start = (): Running => {
      return host().spawn(["guest", "agent", "--local", "other", "--socket", socket], { user: anna })
    }
    // The vTPM's socket is made anew for each agent. One that comes before it was given away tries again.
    const watcher = watch(run, () => {
      if (existsSync(join(run, "tpm.sock"))) chownSync(join(run, "tpm.sock"), anna.uid, anna.gid)
    })
    let agent = start()
    await host().until("its link", async () => {
      if (agent.process.exitCode !== null) agent = start()
      const { vms } = await host().status()
      return vms.some(({ name, link }) => name === "other" && link === "up")
    })
    watcher.close()
    const own = (words: readonly string[], options: RunOptions = {}): Running => {
      return host().spawn(["guest", ...words, "--socket", socket], { ...options, user: anna })
    }
    expect(await own(["status"]).over()).toBe(0)
    await host().must("measure", "learn", "other")
    const receiver = await host().recv("b", out("relayed"), "other")
    const sent = content(2 * MIB)
    const sender = own(["send", "b", "--json"], { stdin: "pipe" })
    const stdin = sender.process.stdin as Bun.FileSink
    stdin.write(sent)
    await stdin.flush()
    await host().until("all of it", () => {
      return existsSync(out("relayed")) && statSync(out("relayed")).size === sent.length
    })
    expect([shared(agent.pid), shared(sender.pid)]).toEqual([[], []])
    await stdin.end()
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(sha256(readFileSync(out("relayed")))).toBe(sha256(sent))
    expect(sender.stderr()).toContain('"transport":"relay"')
    const { vms } = await host().json<{ vms: { name: string; transport: string; mapping: string }[] }>(
      "status",
    )
    expect(vms.find(({ name }) => name === "other")).toMatchObject({
      transport: "relay",
      mapping: "none: the MVM gives it no memory",
    })
    agent.kill("SIGTERM")
    expect(await agent.over()).toBe(0)
  })
})
