/**
 * @module test/integration/relay
 *
 * Where an end maps no memory, its records travel by way of the MVM: the same commands with the same promises.
 * `bare` and `plain` map none, `a` does.
 */

import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { closeSync, constants, existsSync, openSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { ALLOW_ALL, MIB, hostForFile, rule, type Running } from "./host.ts"

const host = hostForFile({
  members: ["a", "bare", "plain"],
  agents: { bare: ["--map", "none"], plain: ["--map", "none"] },
})

/** Longer than all that is held on the way, at both agents, the MVM, and in sockets and pipes. */
const LONG_BYTES = 24 * MIB

interface ChannelView {
  id: string
  state: string
  transport: string
}

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

async function statuses(...commands: Running[]): Promise<unknown[]> {
  const over = await Promise.all(commands.map((command) => command.over()))
  return over.map((status, index) => (status === 0 ? 0 : [status, commands[index]?.stderr()]))
}

function channels(): Promise<ChannelView[]> {
  return host().json<ChannelView[]>("channel", "list")
}

/** A transfer in its middle: `bytes` of it have arrived. */
async function halfway(name: string, from: string, to: string, bytes = MIB) {
  const receiver = await host().recv(to, out(name), from)
  const sender = host().send(from, to, "pipe")
  const stdin = sender.process.stdin as Bun.FileSink
  const first = content(bytes)
  stdin.write(first)
  await stdin.flush()
  await host().until("the first part", () => existsSync(out(name)) && statSync(out(name)).size === bytes)
  return { receiver, sender, stdin, first }
}

/** How far a process has read its standard input, a file. */
function readBytes(running: Running): number {
  const info = readFileSync(`/proc/${running.pid}/fdinfo/0`, "utf8")
  return Number(/^pos:\s+(\d+)$/m.exec(info)?.[1])
}

interface Stuck {
  readonly sender: Running
  readonly receiver: Running
  /** Reads what the receiver writes, until it has ended. */
  read(): Promise<Uint8Array>
}

/** A sender of {@link LONG_BYTES} whose receiver's output nobody reads: it stands still when all on the way is full. */
async function stuck(name: string, from: string, to: string): Promise<Stuck> {
  const pipe = out(`${name}.pipe`)
  expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0)
  const output = openSync(pipe, constants.O_RDWR)
  const receiver = await host().recv(to, output, from)
  const path = host().file(`long-${from}`, content(LONG_BYTES))
  const sender = host().spawn(["guest", "send", "--local", from, to, "--wait", "10s"], {
    stdin: Bun.file(path) as never,
  })
  await host().until("the way to be full", () => readBytes(sender) >= MIB / 2)
  const read = async (): Promise<Uint8Array> => {
    const input = openSync(pipe, constants.O_RDONLY)
    const reader = Bun.spawn(["cat"], { stdin: input, stdout: "pipe" })
    closeSync(input)
    const bytes = new Response(reader.stdout).bytes()
    await receiver.over()
    closeSync(output)
    return bytes
  }
  return { sender, receiver, read }
}

describe.each([
  ["bare", "a"],
  ["a", "bare"],
  ["bare", "plain"],
])("from %s to %s", (from, to) => {
  test("a transfer arrives whole, names its transport at both ends, and has its receipt", async () => {
    const sent = content(5 * MIB + 17)
    const receiver = await host().recv(to, out("whole"), from, "--json")
    const sender = host().send(from, to, sent, "--json")
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(sha256(readFileSync(out("whole")))).toBe(sha256(sent))
    for (const command of [sender, receiver]) {
      const facts = JSON.parse(command.stderr().trim().split("\n").at(-1)!) as Record<string, unknown>
      expect(facts).toMatchObject({ transport: "relay", isolation: null, bytes: sent.length })
    }
    expect((await host().audit("receipt")).at(-1)).toMatchObject({ by: to, lengthBytes: sent.length })
    expect((await host().audit("grant")).at(-1)).toMatchObject({ transport: "relay" })
    await host().free()
  })
})

describe("a relayed channel", () => {
  test("is shown as one, and takes nothing of the arena", async () => {
    const { sender, receiver, stdin } = await halfway("shown", "bare", "a")
    expect(await channels()).toMatchObject([{ transport: "relay", state: "open" }])
    const { arena } = await host().status()
    expect(arena.freeBytes).toBe(arena.sizeBytes)
    const members = await host().json<{ vms: { name: string; transport: string; mapping: string }[] }>(
      "status",
    )
    expect(members.vms.map(({ name, transport }) => [name, transport])).toEqual([
      ["a", "memory"],
      ["bare", "relay"],
      ["plain", "relay"],
    ])
    const own = await host().must("guest", "status", "--local", "bare", "--json")
    expect(JSON.parse(own)).toMatchObject({
      transport: "relay",
      mapping: "none: the agent was started with --map none",
    })
    await stdin.end()
    expect(await statuses(sender, receiver)).toEqual([0, 0])
  })

  test("is refused with status 6 and the reason where the rule demands memory", async () => {
    await host().policy(
      rule('service = "*"', 'from = "*"', 'to = "*"', 'transport = "memory"'),
      "a",
      "a",
      "allow",
    )
    const receiver = await host().recv("a", out("none"))
    const { status, stderr } = await host().run("guest", "send", "--local", "bare", "a")
    expect([status, stderr]).toEqual([
      6,
      expect.stringContaining("bare cannot map shared memory, and the policy"),
    ])
    receiver.kill("SIGTERM")
    await receiver.over()
    const tested = await host().run("policy", "test", "default", "bare", "a")
    expect([tested.status, tested.stdout]).toEqual([
      6,
      expect.stringContaining("bare cannot map shared memory"),
    ])
    await host().policy(ALLOW_ALL, "bare", "a", "allow")
  })

  test("keeps the rule's max_bytes", async () => {
    await host().policy(
      rule('service = "*"', 'from = "*"', 'to = "*"', 'max_bytes = "1 MiB"'),
      "bare",
      "a",
      "allow",
    )
    const receiver = await host().recv("a", out("most"))
    const sender = host().send("bare", "a", content(MIB + 1))
    expect(await sender.over()).toBe(6)
    expect(await receiver.over()).not.toBe(0)
    await host().policy(ALLOW_ALL, "bare", "a", "allow")
    await host().free()
  })

  test("writes nothing before the digest agreed where that is asked for, and hashes the content", async () => {
    const sent = content(3 * MIB)
    const receiver = await host().recv("a", out("first"), "--verify-first", "--json")
    const sender = host().send("bare", "a", sent, "--digest", "sha256")
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(sha256(readFileSync(out("first")))).toBe(sha256(sent))
    expect(receiver.stderr()).toContain(sha256(sent))
  })

  test("may be asked for by the reader", async () => {
    const sent = content(MIB)
    const sender = host().send("bare", "a", sent, "--offer")
    await sender.says("offering")
    const { status } = await host().runWith(
      {},
      "guest",
      "recv",
      "--local",
      "a",
      "bare",
      "--request",
      "--quiet",
    )
    expect([status, await sender.over()]).toEqual([0, 0])
  })
})

describe("a reader that takes nothing", () => {
  test("makes its sender wait: no more is on the way than its bounds, and another channel goes on", async () => {
    const { sender, receiver, read } = await stuck("stuck", "bare", "plain")
    const other = await host().recv("plain", out("other"), "a")
    expect(await statuses(host().send("a", "plain", content(6 * MIB)), other)).toEqual([0, 0])
    const back = await host().recv("bare", out("back"), "plain")
    expect(await statuses(host().send("plain", "bare", content(6 * MIB)), back)).toEqual([0, 0])
    expect(readBytes(sender)).toBeLessThan(6 * MIB)
    const received = await read()
    expect(await statuses(sender, receiver)).toEqual([0, 0])
    expect(sha256(received)).toBe(sha256(readFileSync(out("long-bare"))))
  })

  test("is told of a revocation all the same, and releases nothing after it", async () => {
    const { sender, receiver, read } = await stuck("revoked", "bare", "a")
    const [channel] = await channels()
    await host().must("channel", "close", channel!.id)
    expect(await sender.over()).toBe(7)
    expect(await receiver.over()).toBe(7)
    const received = await read()
    expect(received.length).toBeLessThan(LONG_BYTES)
    expect(Buffer.compare(received, readFileSync(out("long-bare")).subarray(0, received.length))).toBe(0)
    await host().free()
  })
})

describe("the death", () => {
  test("of the sender ends the receiver with status 3", async () => {
    const { sender, receiver } = await halfway("sender", "bare", "a")
    sender.kill("SIGKILL")
    await sender.over()
    expect(await receiver.over()).toBe(3)
    await host().free()
  })

  test("of the receiver ends the sender with status 3", async () => {
    const { sender, receiver } = await halfway("receiver", "bare", "a")
    receiver.kill("SIGKILL")
    await receiver.over()
    expect(await sender.over()).toBe(3)
    await host().free()
  })

  test("of an agent ends both with status 3", async () => {
    const { sender, receiver } = await halfway("agent", "bare", "a")
    host().agentOf("bare").kill("SIGKILL")
    await host().agentOf("bare").over()
    expect(await Promise.all([sender.over(), receiver.over()])).toEqual([3, 3])
    await host().agent("bare")
    await host().free()
  })

  test.each(["SIGTERM", "SIGKILL"] as const)(
    "of the MVM by %s is outlived: started again, it passes on what was lost, and the transfer ends with a receipt",
    async (signal) => {
      const { sender, receiver, stdin, first } = await halfway("across", "bare", "plain")
      // On its way when the MVM goes, and while it is away.
      const second = content(8 * MIB)
      stdin.write(second)
      await host().stopServe(signal)
      await host().serve()
      await Promise.all([host().linked("bare"), host().linked("plain")])
      expect(await channels()).toMatchObject([{ transport: "relay" }])
      await stdin.flush()
      await stdin.end()
      expect(await statuses(sender, receiver)).toEqual([0, 0])
      expect(sha256(readFileSync(out("across")))).toBe(sha256(Buffer.concat([first, second])))
      expect((await host().audit("receipt")).at(-1)).toMatchObject({ lengthBytes: 9 * MIB })
      await host().free()
    },
  )
})
