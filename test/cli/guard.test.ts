import { expect, test } from "bun:test"
import { join } from "node:path"

const ROOT = join(import.meta.dir, "../..")

test("a daemon says what nothing caught, and goes on", async () => {
  const code = `
    import { keepRunning } from "./src/cli/guard.ts"
    import { Log } from "./src/lib/log.ts"
    keepRunning(new Log({ level: "info", format: "json" }))
    setTimeout(() => { throw new Error("from a timer") }, 1)
    setTimeout(() => { void Promise.reject(new TypeError("from a promise")) }, 5)
    setTimeout(() => console.log("still here"), 50)
  `
  const child = Bun.spawn([process.execPath, "-e", code], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] })
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  expect(stdout).toBe("still here\n")
  expect(status).toBe(0)
  const lines = stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, string>)
  expect(lines.map(({ event, message }) => [event, message])).toEqual([
    ["uncaught_exception", "from a timer"],
    ["unhandled_rejection", "from a promise"],
  ])
  expect(lines[0]!["stack"]).toContain("from a timer")
})
