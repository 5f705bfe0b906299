import { expect, test } from "bun:test"
import { join } from "node:path"

const ROOT = join(import.meta.dir, "../..")

test("what a connection's handler throws ends the connection, and is not swallowed", async () => {
  const code = `
    import { mkdtempSync, rmSync } from "node:fs"
    import { connectUnix, listenUnix } from "./src/platform/unix-socket.ts"
    const folder = mkdtempSync("/tmp/mvm-socket-")
    process.on("uncaughtException", (error) => console.log("uncaught: " + error.message))
    const listener = listenUnix(folder + "/s", 0o600, (socket) => {
      socket.handlers = { onData: () => { throw new TypeError("a bug") }, onClose: () => console.log("closed") }
    })
    const client = await connectUnix(folder + "/s", { onData: () => {}, onClose: () => {
      setTimeout(() => { listener.close(); rmSync(folder, { recursive: true }) }, 20)
    } })
    client.write(new Uint8Array(1))
  `
  const child = Bun.spawn([process.execPath, "-e", code], { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] })
  const stdout = await new Response(child.stdout).text()
  expect(await child.exited).toBe(0)
  expect(stdout.trim().split("\n").sort()).toEqual(["closed", "uncaught: a bug"])
})
