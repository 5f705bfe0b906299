import { expect, test } from "bun:test"
import { join } from "node:path"
import { random } from "../../src/lib/crypto.ts"
import { secretsInMemory } from "../integration/memory-image.ts"

test("the key of a direction that is over is in its process's memory no more", async () => {
  const key = random(32).map((byte) => byte | 1)
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "wipe-peer.ts")], {
    stdin: "pipe",
    stdout: "pipe",
  })
  try {
    child.stdin.write(key.map((byte) => byte - 1))
    await child.stdin.flush()
    const said = child.stdout.getReader()
    const next = async (): Promise<string> => new TextDecoder().decode((await said.read()).value).trim()
    const secrets = new Map([["key", key]])
    expect(await next()).toBe("held")
    expect(secretsInMemory(child.pid, secrets)).toEqual(["key"])
    child.stdin.write("\n")
    await child.stdin.flush()
    expect(await next()).toBe("wiped")
    expect(secretsInMemory(child.pid, secrets)).toEqual([])
  } finally {
    child.kill("SIGKILL")
    await child.exited
  }
}, 60_000)
