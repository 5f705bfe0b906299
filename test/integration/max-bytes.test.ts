/**
 * @module test/integration/max-bytes
 *
 * A rule's max_bytes holds at the sender, before more than that left it.
 */

import { expect, test } from "bun:test"
import { statSync } from "node:fs"
import { join } from "node:path"
import { hostForFile, rule } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

test("a transfer of max_bytes succeeds, and one byte more ends with status 6", async () => {
  host().writePolicy(rule('service = "*"', 'from = "*"', 'to = "*"', 'max_bytes = "64 KiB"'))
  await host().until("the new policy", async () => {
    const path = join(host().folder, "out")
    const receiver = await host().recv("b", path)
    const sender = host().send("a", "b", new Uint8Array(65537))
    const statuses = [await sender.over(), await receiver.over()]
    if (statuses[0] === 0) return false
    expect(statuses).toEqual([6, 3])
    expect(sender.stderr()).toContain("allows 64.0 KiB")
    expect(statSync(path).size).toBeLessThan(65537)
    return true
  })
  const receiver = await host().recv("b", join(host().folder, "out"))
  expect(await host().send("a", "b", new Uint8Array(65536)).over()).toBe(0)
  expect(await receiver.over()).toBe(0)
  await host().free()
})
