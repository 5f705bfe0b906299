/** @module test/integration/transfer */

import { describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { closeSync, openSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { MIB, hostForFile, type Running } from "./host.ts"
import { anonymousMib } from "./processes.ts"

const MEMBERS = ["a", "b", "c", "d"]
const host = hostForFile({ members: MEMBERS })

/** Not compressible, and every block another. */
function bytesOf(length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let at = 0; at < length; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(length, at + 65536)))
  }
  return bytes
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex")
}

function out(name: string): string {
  return join(host().folder, name)
}

/** Both ends' statuses, with what they said in case of a failure. */
async function ended(...commands: Running[]): Promise<string[]> {
  const statuses = await Promise.all(commands.map((command) => command.over()))
  return statuses.map((status, index) => (status === 0 ? "0" : `${status}: ${commands[index]?.stderr()}`))
}

describe("a transfer", () => {
  const sizes = [0, 1, 63, 64, 65, 4095, 65_537, MIB, MIB + 1, 3 * MIB - 7]
  test.each(sizes)("of %d bytes arrives as it was, from a pipe and from a file", async (length) => {
    const bytes = bytesOf(length)
    const receivers = [await host().recv("b", out("pipe.out")), undefined]
    expect(await ended(host().send("a", "b", bytes), receivers[0] as Running)).toEqual(["0", "0"])
    const file = host().file("in", bytes)
    const receiver = await host().recv("b", out("file.out"))
    const sender = host().spawn(["guest", "send", "--local", "a", "b", file])
    expect(await ended(sender, receiver)).toEqual(["0", "0"])
    expect(digestOf(readFileSync(out("pipe.out")))).toBe(digestOf(bytes))
    expect(digestOf(readFileSync(out("file.out")))).toBe(digestOf(bytes))
  })

  test("of 200 MiB arrives as it was, and neither end's memory grows with it", async () => {
    const bytes = bytesOf(200 * MIB)
    const file = host().file("large", bytes)
    const receiver = await host().recv("b", out("large.out"))
    const sender = host().spawn(["guest", "send", "--local", "a", "b", file])
    let greatest = 0
    while (sender.process.exitCode === null) {
      for (const { pid } of [sender, receiver]) greatest = Math.max(greatest, anonymousMib(pid))
      await Bun.sleep(10)
    }
    expect(await ended(sender, receiver)).toEqual(["0", "0"])
    expect(digestOf(readFileSync(out("large.out")))).toBe(digestOf(bytes))
    expect(greatest).toBeGreaterThan(1)
    expect(greatest).toBeLessThan(100)
  })

  test("of 200 MiB goes through pipes at both ends", async () => {
    const receiver = await host().recv("b", "pipe")
    const hash = createHash("sha256")
    let length = 0
    const reading = (async () => {
      for await (const chunk of receiver.process.stdout as ReadableStream<Uint8Array>) {
        hash.update(chunk)
        length += chunk.length
      }
    })()
    const block = bytesOf(MIB)
    const sent = createHash("sha256")
    const sender = host().send("a", "b", "pipe")
    const stdin = sender.process.stdin as Bun.FileSink
    for (let count = 0; count < 200; count += 1) {
      block[count] = count
      sent.update(block)
      stdin.write(block.slice())
      await stdin.flush()
    }
    await stdin.end()
    expect(await ended(sender, receiver)).toEqual(["0", "0"])
    await reading
    expect([length, hash.digest("hex")]).toEqual([200 * MIB, sent.digest("hex")])
  })

  test("waits for a slow writer and for a slow reader", async () => {
    const receiver = await host().recv("b", "pipe")
    const sender = host().send("a", "b", "pipe")
    const stdin = sender.process.stdin as Bun.FileSink
    const block = bytesOf(700_001)
    const writing = (async () => {
      for (let count = 0; count < 5; count += 1) {
        stdin.write(block)
        await stdin.flush()
        await Bun.sleep(30)
      }
      await stdin.end()
    })()
    const parts: Uint8Array[] = []
    for await (const chunk of receiver.process.stdout as ReadableStream<Uint8Array>) {
      parts.push(chunk)
      await Bun.sleep(5)
    }
    await writing
    expect(await ended(sender, receiver)).toEqual(["0", "0"])
    expect(digestOf(Buffer.concat(parts))).toBe(digestOf(Buffer.concat([block, block, block, block, block])))
  })

  test("takes standard input under the name - beside a file of that kind", async () => {
    const receiver = await host().recv("b", out("dash.out"))
    const sender = host().send("a", "b", bytesOf(10), "-")
    expect(await ended(sender, receiver)).toEqual(["0", "0"])
    expect(statSync(out("dash.out")).size).toBe(10)
  })

  test("hashes the content too when it is asked for that", async () => {
    const bytes = bytesOf(200_000)
    const receiver = await host().recv("b", out("hash.out"), "--json")
    const sender = host().send("a", "b", bytes, "--digest", "sha256", "--json")
    expect(await ended(sender, receiver)).toEqual(["0", "0"])
    for (const command of [sender, receiver]) {
      const facts = JSON.parse(command.stderr().split("\n").filter(Boolean).at(-1) as string) as object
      expect(facts).toMatchObject({
        bytes: 200_000,
        content: digestOf(bytes),
        digestCovers: "records and content",
        peerVerdict: "trusted",
        peerMeasurement: "agent",
      })
    }
  })

  test("goes to the receiver that named its source, and not to one that named another", async () => {
    const forC = await host().recv("b", out("c.out"), "c")
    const forA = await host().recv("b", out("a.out"), "a")
    expect(await ended(host().send("a", "b", bytesOf(3)), forA)).toEqual(["0", "0"])
    expect(await ended(host().send("c", "b", bytesOf(4)), forC)).toEqual(["0", "0"])
    expect([statSync(out("a.out")).size, statSync(out("c.out")).size]).toEqual([3, 4])
  })

  test("goes by the service's name", async () => {
    const nightly = await host().recv("b", out("nightly.out"), "--service", "nightly")
    const hourly = await host().recv("b", out("hourly.out"), "--service", "hourly")
    expect(await ended(host().send("a", "b", bytesOf(5), "--service", "hourly"), hourly)).toEqual(["0", "0"])
    const last = host().send("a", "b", bytesOf(6), "--service", "nightly")
    expect(await ended(last, nightly)).toEqual(["0", "0"])
    expect([statSync(out("hourly.out")).size, statSync(out("nightly.out")).size]).toEqual([5, 6])
  })

  test("is asked for by the reader, before and after the offer", async () => {
    const bytes = bytesOf(100_000)
    const waiting = await host().recv("b", out("wait.out"), "a", "--request", "--wait", "20s")
    await Bun.sleep(100)
    const offered = host().send("a", "b", bytes, "--offer")
    expect(await ended(offered, waiting)).toEqual(["0", "0"])
    const offer = host().send("a", "b", bytes, "--offer")
    await offer.says("offering service")
    const asking = await host().recv("b", out("ask.out"), "a", "--request")
    expect(await ended(offer, asking)).toEqual(["0", "0"])
    expect(digestOf(readFileSync(out("wait.out")))).toBe(digestOf(bytes))
    expect(digestOf(readFileSync(out("ask.out")))).toBe(digestOf(bytes))
  })

  test("waits for its receiver up to --wait", async () => {
    const sender = host().send("a", "b", bytesOf(9), "--wait", "20s")
    await Bun.sleep(100)
    const receiver = await host().recv("b", out("later.out"))
    expect(await ended(sender, receiver)).toEqual(["0", "0"])
  })

  test("follows the one before it into one output with --keep", async () => {
    const keeper = await host().recv("b", out("keep.out"), "--keep")
    for (const text of ["one ", "two ", "three"]) {
      const sender = host().send("a", "b", new TextEncoder().encode(text), "--wait", "20s")
      expect(await ended(sender)).toEqual(["0"])
    }
    await host().until("the third", () => readFileSync(out("keep.out"), "utf8") === "one two three")
    keeper.kill("SIGINT")
    expect(await keeper.over()).toBe(130)
  })

  test("runs beside fifteen others between four members", async () => {
    const bytes = bytesOf(2 * MIB)
    const file = host().file("many", bytes)
    const pairs = MEMBERS.flatMap((from) => MEMBERS.map((to) => [from, to] as const)).filter(
      ([from, to]) => from !== to,
    )
    const more = pairs.slice(0, 4)
    const commands = [...pairs, ...more].map(([from, to], index) => {
      const service = `s${index}`
      const receiver = host().spawn(["guest", "recv", from, "--local", to, "--service", service], {
        stdout: out(`${service}.out`),
      })
      const input = openSync(file, "r")
      const sender = host().send(from, to, input, "--service", service, "--wait", "20s")
      closeSync(input)
      return [sender, receiver]
    })
    expect(commands).toHaveLength(16)
    const statuses = await ended(...commands.flat())
    expect(statuses).toEqual(statuses.map(() => "0"))
    const wanted = digestOf(bytes)
    for (let index = 0; index < 16; index += 1) {
      expect(digestOf(readFileSync(out(`s${index}.out`)))).toBe(wanted)
    }
  })

  test("leaves nothing behind in the arena", async () => {
    await host().free()
    expect((await host().audit("refused")).length).toBe(0)
    expect(await host().must("audit", "verify")).toContain("chain and signatures hold")
  })
})
