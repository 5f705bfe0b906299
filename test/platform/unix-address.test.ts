import { afterEach, expect, test } from "bun:test"
import { closeSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { probeSwtpm, shutdownSwtpm } from "../../src/platform/swtpm-control.ts"
import { startSwtpm } from "../../src/platform/swtpm.ts"
import { listenForChild } from "../../src/platform/unix-address.ts"

const folder = mkdtempSync(join(tmpdir(), "mvm-address-"))
const path = join(folder, "s")
const opened: number[] = []
afterEach(() => {
  for (const fd of opened.splice(0)) closeSync(fd)
  rmSync(folder, { recursive: true, force: true })
})

test("who connects before a child is there, or between two of them, waits for the next one", async () => {
  const fd = listenForChild(path)
  opened.push(fd)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  mkdirSync(join(folder, "tpm"))
  for (let life = 0; life < 2; life++) {
    const early = probeSwtpm(path, 30_000)
    const swtpm = await startSwtpm({
      stateDir: join(folder, "tpm"),
      stateKey: new Uint8Array(32).fill(7),
      controlSocket: path,
      controlListener: { fd, pidFile: join(folder, "pid") },
      logFile: join(folder, "log"),
    })
    try {
      await early
      await shutdownSwtpm(path)
      expect((await swtpm.exited).code).toBe(0)
    } finally {
      await swtpm.stop()
    }
    expect(statSync(path).isSocket()).toBe(true)
  }
}, 60_000)

test("a path that no socket can have is refused", () => {
  expect(() => listenForChild("relative")).toThrow("cannot be the path of a socket")
  expect(() => listenForChild(`/${"x".repeat(108)}`)).toThrow("cannot be the path of a socket")
})
