/**
 * @module test/integration/verify-first
 *
 * recv --verify-first: the method's literal order, nothing out before the digest agreed.
 */

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { MIB, hostForFile, type Running } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })
const spools = mkdtempSync(join(tmpdir(), "mvm-spool-"))
afterAll(() => rmSync(spools, { recursive: true, force: true }))

const BYTES = new Uint8Array(5 * MIB + 3).map((_, index) => (index * 7919) >>> 3)

/** A receiver whose spool lies in `directory`. */
async function receiver(output: string, directory: string, ...words: string[]): Promise<Running> {
  process.env["TMPDIR"] = directory
  try {
    return await host().recv("b", output, "--verify-first", ...words)
  } finally {
    delete process.env["TMPDIR"]
  }
}

describe("recv --verify-first", () => {
  test("writes what was sent, byte for byte, and leaves no file of its own", async () => {
    const output = join(host().folder, "whole")
    const receiving = await receiver(output, spools)
    const sending = host().send("a", "b", BYTES)
    expect([await sending.over(), await receiving.over()]).toEqual([0, 0])
    expect(readFileSync(output).equals(BYTES)).toBe(true)
    expect(readdirSync(spools)).toEqual([])
  })

  test("has written nothing while the end is still to come, and everything after it", async () => {
    const output = join(host().folder, "held")
    const receiving = await receiver(output, spools)
    const sending = host().send("a", "b", "pipe")
    const stdin = sending.process.stdin as Bun.FileSink
    stdin.write(BYTES)
    await stdin.flush()
    // The receiver has all records of it: only the end is missing.
    await host().until("all bytes to be spooled", () => spooledBytes(receiving.pid) >= BYTES.length)
    expect(statSync(output).size).toBe(0)
    expect(readdirSync(spools)).toEqual([])
    await stdin.end()
    expect([await sending.over(), await receiving.over()]).toEqual([0, 0])
    expect(statSync(output).size).toBe(BYTES.length)
  })

  test("writes nothing at all when the sender dies before the end", async () => {
    const output = join(host().folder, "cut")
    const receiving = await receiver(output, spools)
    const sending = host().send("a", "b", "pipe")
    const stdin = sending.process.stdin as Bun.FileSink
    stdin.write(BYTES)
    await stdin.flush()
    await host().until("all bytes to be spooled", () => spooledBytes(receiving.pid) >= BYTES.length)
    sending.kill("SIGKILL")
    await sending.over()
    expect(await receiving.over()).toBe(3)
    expect(statSync(output).size).toBe(0)
    await host().free()
  })

  test("releases before the receipt, so that a closed output leaves the sender without one", async () => {
    const receiving = host().spawn(["guest", "recv", "--local", "b", "--verify-first"], { stdout: "pipe" })
    await receiving.says("waiting for")
    const receipts = (await host().audit("receipt")).length
    await (receiving.process.stdout as ReadableStream).cancel()
    const sending = host().send("a", "b", BYTES)
    expect(await receiving.over()).toBe(1)
    expect(await sending.over()).not.toBe(0)
    expect((await host().audit("receipt")).length).toBe(receipts)
    await host().free()
  })

  test("ends before anybody is told to send when it cannot hold anything back", async () => {
    const missing = join(spools, "missing")
    process.env["TMPDIR"] = missing
    const ran = await host()
      .run("guest", "recv", "--local", "b", "--verify-first")
      .finally(() => delete process.env["TMPDIR"])
    expect(ran.status).toBe(1)
    expect(ran.stderr).toContain(`cannot hold the output back in ${missing}`)
    expect(ran.stderr).toContain("TMPDIR")
    expect(ran.stderr).not.toContain("waiting for")
  })
})

/** Size of the nameless file that process `pid` holds in the folder of spools. */
function spooledBytes(pid: number): number {
  const folder = `/proc/${pid}/fd`
  for (const fd of readdirSync(folder)) {
    try {
      const { nlink, size, mode } = statSync(join(folder, fd))
      if (nlink === 0 && (mode & 0o170000) === 0o100000) return size
    } catch {
      // It was closed meanwhile.
    }
  }
  return 0
}
