/**
 * @module test/integration/region
 *
 * A region is given out again only when no process of either end can write into it any more.
 */

import { expect, test } from "bun:test"
import { existsSync, statSync } from "node:fs"
import { join } from "node:path"
import { hostForFile, rule } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

test.each(["arena", "dedicated"])(
  "a command that stands still keeps its region in %s memory through a revocation until it has gone",
  async (isolation) => {
    await host().policy(
      rule('service = "*"', 'from = "*"', 'to = "*"', `isolation = "${isolation}"`),
      "a",
      "b",
      "allow",
    )
    const path = join(host().folder, `endless-${isolation}`)
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
    const { arena, dedicated } = await host().status()
    expect({ inArena: arena.freeBytes < arena.sizeBytes, ofItsOwn: dedicated.used }).toEqual({
      inArena: isolation === "arena",
      ofItsOwn: isolation === "arena" ? 0 : 1,
    })
    // What is its own has no name any more: nobody else finds it.
    expect(host().memoryFiles()).toEqual([])
    sender.kill("SIGCONT")
    expect(await sender.over()).toBe(7)
    await host().free()
  },
)
