/** @module test/platform/service-manager */

import { afterEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ServiceManager } from "../../src/platform/service-manager.ts"
import { socketAddress } from "../../src/platform/unix-address.ts"
import { Datagrams } from "./datagrams.ts"

const ROOT = join(import.meta.dir, "../..")
const undo: (() => unknown)[] = []

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function listening(address?: string): Promise<Datagrams> {
  const folder = mkdtempSync(join(tmpdir(), "mvn-"))
  undo.push(() => rmSync(folder, { recursive: true }))
  const datagrams = await Datagrams.listen(address ?? join(folder, "notify"), join(folder, "said"))
  undo.push(() => datagrams.close())
  return datagrams
}

function of(address: string, more: Record<string, string> = {}): ServiceManager {
  const manager = ServiceManager.from({ NOTIFY_SOCKET: address, ...more }, 77)
  undo.push(() => manager.stopping())
  return manager
}

const ALIVE = { status: () => "2 of 3", isAlive: () => true }

describe("a service manager", () => {
  test.each(["path", "abstract"])(
    "hears by its %s that the daemon is ready and that it ends",
    async (kind) => {
      const datagrams = await listening(kind === "abstract" ? `@mvm-test-${crypto.randomUUID()}` : undefined)
      const manager = of(datagrams.address)
      manager.ready(ALIVE)
      manager.stopping()
      const said = ["READY=1", "STATUS=2 of 3", "STOPPING=1"]
      expect(await datagrams.until("all", (lines) => lines.length >= 3)).toEqual(said)
    },
  )

  test("hears what the daemon does when that changes, in one line", async () => {
    const datagrams = await listening()
    let status = "starting"
    of(datagrams.address).ready({ status: () => status, isAlive: () => true })
    status = "a\nREADY=0\u001b"
    const lines = await datagrams.until("the change", (all) => all.length >= 3)
    expect(lines).toEqual(["READY=1", "STATUS=starting", "STATUS=a READY=0 "])
  })

  test("hears that the daemon lives as often as it asked for, and only while it does", async () => {
    const datagrams = await listening()
    let isAlive = true
    of(datagrams.address, { WATCHDOG_USEC: "40000", WATCHDOG_PID: "77" }).ready({
      status: () => "",
      isAlive: () => {
        if (!isAlive) throw new Error("the database does not answer")
        return true
      },
    })
    const beats = (lines: string[]): number => lines.filter((line) => line === "WATCHDOG=1").length
    await datagrams.until("beats", (lines) => beats(lines) >= 5)
    isAlive = false
    const before = await settled(datagrams)
    await Bun.sleep(400)
    expect(datagrams.lines().length).toBe(before)
  })

  test("hears nothing from a daemon whose event loop stands still", async () => {
    const datagrams = await listening()
    const code = `
      import { ServiceManager } from "./src/platform/service-manager.ts"
      const manager = ServiceManager.from(process.env, process.pid)
      let beats = 0
      manager.ready({ status: () => "", isAlive: () => { beats += 1; return true } })
      setInterval(() => { if (beats > 2) while (true); }, 10)
    `
    const child = Bun.spawn([process.execPath, "-e", code], {
      cwd: ROOT,
      env: { ...process.env, NOTIFY_SOCKET: datagrams.address, WATCHDOG_USEC: "40000" },
      stdio: ["ignore", "inherit", "inherit"],
    })
    undo.push(async () => {
      child.kill("SIGKILL")
      await child.exited
    })
    await datagrams.until("beats", (lines) => lines.filter((line) => line === "WATCHDOG=1").length >= 2)
    const before = await settled(datagrams)
    await Bun.sleep(400)
    expect(datagrams.lines().length).toBe(before)
  })

  test("is asked for a watchdog by nobody, by nonsense, or for another process: nothing is said of life", async () => {
    const datagrams = await listening()
    for (const more of [{}, { WATCHDOG_USEC: "soon" }, { WATCHDOG_USEC: "1000", WATCHDOG_PID: "78" }]) {
      of(datagrams.address, more).ready(ALIVE)
    }
    await datagrams.until("all are ready", (lines) => lines.filter((line) => line === "READY=1").length === 3)
    await Bun.sleep(50)
    expect(datagrams.lines()).not.toContain("WATCHDOG=1")
  })
})

describe("a daemon", () => {
  test("does not hand the manager's socket to its children", () => {
    const environment: Record<string, string | undefined> = {
      NOTIFY_SOCKET: "/run/x",
      WATCHDOG_USEC: "1",
      WATCHDOG_PID: "1",
      PATH: "/bin",
    }
    ServiceManager.from(environment, 1)
    expect(environment).toEqual({ PATH: "/bin" })
  })

  test("goes on without a manager, and with one that is gone", () => {
    for (const environment of [
      {},
      { NOTIFY_SOCKET: "/nonexistent/notify" },
      { NOTIFY_SOCKET: "vsock:2:1" },
    ]) {
      const manager = ServiceManager.from(environment, 1)
      manager.ready(ALIVE)
      manager.stopping()
    }
  })

  test("takes nothing but a path or an abstract name for a socket's name", () => {
    expect(socketAddress("/run/n")).toEqual(Buffer.from("\x01\0/run/n\0"))
    expect(socketAddress("@n")).toEqual(Buffer.from("\x01\0\0n"))
    for (const name of ["", "relative", "vsock:2:1", `/${"x".repeat(200)}`]) {
      expect(socketAddress(name)).toBeUndefined()
    }
  })
})

/** How many lines there are once no more are on their way. */
async function settled(datagrams: Datagrams): Promise<number> {
  let before = -1
  while (datagrams.lines().length !== before) {
    before = datagrams.lines().length
    await Bun.sleep(100)
  }
  return before
}
