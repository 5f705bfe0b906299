/**
 * @module test/integration/waiting
 *
 * A receiver that waits, and an asker that was trusted until the request which shows that it is no longer: both ends
 * prove themselves at once then, and the receiver has done so in vain.
 */

import { expect, test } from "bun:test"
import { copyFileSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { hostForFile } from "./host.ts"

const host = hostForFile({ members: ["a", "b", "c"] })

test("a receiver goes on waiting when the asker is found untrusted while the channel is opened", async () => {
  const received = join(host().folder, "received")
  const receiver = await host().recv("b", received, "--keep")
  expect(await host().send("a", "b", new TextEncoder().encode("one"), "--wait", "10s").over()).toBe(0)
  const unknown = join(host().folder, "unknown")
  copyFileSync(host().mvm, unknown)
  const refused = host().spawn(["guest", "send", "b", "--local", "a", "--wait", "10s"], {
    program: unknown,
    stdin: new TextEncoder().encode("never"),
  })
  expect([await refused.over(), refused.stderr()]).toEqual([4, expect.stringContaining(unknown)])
  expect(await host().send("c", "b", new TextEncoder().encode("two"), "--wait", "10s").over()).toBe(0)
  receiver.kill("SIGINT")
  expect(await receiver.over()).toBe(130)
  expect(readFileSync(received, "utf8")).toBe("onetwo")
})
