/**
 * @module test/guest/streams/address
 *
 * A unix socket whose queue is full: who connects waits, and who wants its place does not get it.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { closeSync, existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connectTo, listenAt } from "../../../src/guest/streams/address.ts"
import { MvmError, errnoOf } from "../../../src/lib/errors.ts"
import { connectNow, listenForChild } from "../../../src/platform/unix-address.ts"

const folder = mkdtempSync(join(tmpdir(), "mvm-address-"))
const path = join(folder, "socket")
const waiting: number[] = []
let listening = -1
const UNBROKEN = new AbortController().signal

beforeAll(() => {
  listening = listenForChild(path)
  for (;;) {
    try {
      waiting.push(connectNow(path))
    } catch (error) {
      expect(errnoOf(error)).toBe("EAGAIN")
      return
    }
  }
})

afterAll(() => {
  for (const fd of waiting) closeSync(fd)
  rmSync(folder, { recursive: true })
})

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "none",
    (error: unknown) => (error instanceof MvmError ? error.code : String(error)),
  )
}

test("a place where somebody listens who is busy is in use, and stays theirs", async () => {
  expect(waiting.length).toBeGreaterThan(0)
  expect(await codeOf(listenAt({ kind: "unix", path }, () => {}))).toBe("exists")
  expect(existsSync(path)).toBe(true)
})

test("a connection that nobody wants any more waits no longer", async () => {
  const broken = new AbortController()
  const connecting = codeOf(connectTo({ kind: "unix", path }, broken.signal))
  broken.abort()
  expect(await connecting).toBe("unreachable")
})

test("a connection waits until those before it were accepted", async () => {
  const connecting = connectTo({ kind: "unix", path }, UNBROKEN)
  await Bun.sleep(50)
  expect(Bun.peek.status(connecting)).toBe("pending")
  const accepted: unknown[] = []
  const server = Bun.listen({
    fd: listening,
    socket: { open: (socket: Bun.Socket) => void accepted.push(socket.write("!")), data() {} },
  } as unknown as Bun.UnixSocketOptions<undefined>)
  try {
    const connection = await connecting
    const chunk = await connection.read()
    expect(new TextDecoder().decode(chunk ?? undefined)).toBe("!")
    expect(accepted.length).toBe(waiting.length + 1)
    connection.reset(new MvmError("aborted", "seen"))
  } finally {
    server.stop(true)
  }
})

test("where nobody listens, or nothing is, it is refused at once", async () => {
  const left = join(folder, "left")
  closeSync(listenForChild(left))
  expect(await codeOf(connectTo({ kind: "unix", path: left }, UNBROKEN))).toBe("unreachable")
  expect(await codeOf(connectTo({ kind: "unix", path: join(folder, "absent") }, UNBROKEN))).toBe(
    "unreachable",
  )
  const { close } = await listenAt({ kind: "unix", path: left }, () => {})
  close()
})
