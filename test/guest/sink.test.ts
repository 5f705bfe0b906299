import { afterEach, describe, expect, test } from "bun:test"
import { closeSync, constants, mkdtempSync, openSync, readSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { MvmError } from "../../src/lib/errors.ts"
import { Sink } from "../../src/guest/sink.ts"

const undo: (() => void)[] = []
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step()
})

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "mvm-sink-"))
  undo.push(() => rmSync(path, { recursive: true, force: true }))
  return path
}

function open(path: string, flags: number): number {
  const fd = openSync(path, flags, 0o600)
  undo.push(() => closeSync(fd))
  return fd
}

/** A pipe whose writing end blocks, as a shell gives it. */
function pipe(): { read: number; write: number } {
  const path = join(folder(), "pipe")
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0)
  return {
    read: open(path, constants.O_RDONLY | constants.O_NONBLOCK),
    write: open(path, constants.O_WRONLY),
  }
}

/** A channel whose lease ends after so many looks at it. */
function channel(looks: number) {
  const quiet = pipe()
  return {
    agent: { fd: quiet.read },
    looked: 0,
    check() {
      this.looked += 1
      if (this.looked > looks) throw new MvmError("lease_expired", "the lease is over")
    },
  }
}

function drain(fd: number): number {
  const buffer = new Uint8Array(1 << 20)
  let total = 0
  for (;;) {
    try {
      const got = readSync(fd, buffer, 0, buffer.length, null)
      if (got === 0) return total
      total += got
    } catch {
      return total
    }
  }
}

describe("a receiver's output", () => {
  test("gets no byte after the lease ended, though a write was under way and its reader comes back", async () => {
    const { read, write } = pipe()
    const sink = new Sink(write, channel(3))
    const bytes = new Uint8Array(1 << 20)
    const failed = await sink.write(bytes).catch((error: unknown) => error)
    expect(failed).toMatchObject({ code: "lease_expired" })
    const taken = drain(read)
    expect(taken).toBeGreaterThan(0)
    expect(taken).toBeLessThan(bytes.length)
    expect(drain(read)).toBe(0)
    sink.close()
  })

  test("gets nothing at all when the lease is over before", async () => {
    const { read, write } = pipe()
    const sink = new Sink(write, channel(0))
    expect(await sink.write(new Uint8Array(10)).catch((error: unknown) => error)).toMatchObject({
      code: "lease_expired",
    })
    expect(drain(read)).toBe(0)
    sink.close()
  })

  test("gets everything in order as its reader takes it, and the shared pipe still blocks", async () => {
    const { read, write } = pipe()
    const sink = new Sink(write, channel(Infinity))
    const bytes = crypto.getRandomValues(new Uint8Array(65536)).toBase64()
    const sent = Buffer.from(bytes.repeat(2))
    const got: Buffer[] = []
    const writing = sink.write(sent)
    const buffer = new Uint8Array(10_000)
    let total = 0
    while (total < sent.length) {
      try {
        const count = readSync(read, buffer, 0, buffer.length, null)
        got.push(Buffer.from(buffer.subarray(0, count)))
        total += count
      } catch {
        await Bun.sleep(0)
      }
    }
    await writing
    sink.close()
    expect(Buffer.concat(got).equals(sent)).toBe(true)
    const flags = readFileSync(`/proc/self/fdinfo/${write}`, "utf8").match(/^flags:\s+(\d+)/m)![1]!
    expect(parseInt(flags, 8) & constants.O_NONBLOCK).toBe(0)
  })

  test("that is a file keeps its place", async () => {
    const path = join(folder(), "file")
    const fd = open(path, constants.O_RDWR | constants.O_CREAT)
    for (const text of ["first ", "second"]) {
      const sink = new Sink(fd, channel(Infinity))
      await sink.write(new TextEncoder().encode(text))
      sink.close()
    }
    expect(readFileSync(path, "utf8")).toBe("first second")
  })

  test("whose reader has gone is said as such", async () => {
    const path = join(folder(), "pipe")
    expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0)
    const read = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const write = open(path, constants.O_WRONLY)
    closeSync(read)
    const sink = new Sink(write, channel(Infinity))
    expect(await sink.write(new Uint8Array(10)).catch((error: unknown) => error)).toMatchObject({
      code: "sink",
      message: expect.stringContaining("EPIPE") as string,
    })
    sink.close()
  })
})
