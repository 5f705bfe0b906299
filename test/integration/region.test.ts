/**
 * @module test/integration/region
 *
 * A region is given out again only when no process of either end can write into it any more.
 */

import { expect, test } from "bun:test"
import { existsSync, statSync } from "node:fs"
import { join } from "node:path"
import { hostForFile } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

test("a command that stands still keeps its region through a revocation until it has gone", async () => {
  const path = join(host().folder, "endless")
  const receiver = await host().recv("b", path)
  const sender = host().send("a", "b", "pipe")
  const stdin = sender.process.stdin as Bun.FileSink
  stdin.write(new Uint8Array(100_000))
  await stdin.flush()
  await host().until("the first bytes", () => existsSync(path) && statSync(path).size > 0)
  sender.kill("SIGSTOP")
  const [channel] = JSON.parse(await host().must("channel", "list", "--json")) as { id: string }[]
  await host().must("channel", "close", channel!.id)
  expect(await receiver.over()).toBe(7)
  const { arena } = await host().status()
  expect(arena.freeBytes).toBeLessThan(arena.sizeBytes)
  sender.kill("SIGCONT")
  expect(await sender.over()).toBe(7)
  await host().free()
})
