/**
 * @module test/integration/early-end
 *
 * Messages of the link that come as close together as they can.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { concat } from "../../src/lib/bytes.ts"
import { LinkProxy } from "./link-proxy.ts"
import { TestHost } from "./host.ts"

let host: TestHost
const proxy = new LinkProxy(() => host.state)

beforeAll(async () => {
  host = await TestHost.start({ guestState: proxy.guestState, onMember: proxy.add })
  await host.member("a")
  await host.member("b")
}, 60_000)
afterAll(async () => {
  await host?.end()
  proxy.close()
}, 60_000)

test("a FIN that comes in one piece with OPENED is not lost on the reader who asked", async () => {
  const content = new Uint8Array(1000).fill(7)
  let opened: Uint8Array | undefined
  let together = false
  proxy.watcher = ({ member, direction, name, frame, inject }) => {
    if (member !== "b" || direction !== "to guest") return true
    if (name === "OPENED") opened = frame.slice()
    if (name === "FIN" && opened) {
      inject(concat(opened, frame))
      together = true
    }
    return name !== "OPENED" && name !== "FIN"
  }
  const sender = host.send("a", "b", content, "--offer")
  await sender.says("offering")
  const out = join(host.folder, "early")
  const receiver = host.spawn(["guest", "recv", "--local", "b", "a", "--request"], { stdout: out })
  expect([await receiver.over(), await sender.over()]).toEqual([0, 0])
  expect(together).toBe(true)
  expect(new Uint8Array(readFileSync(out))).toEqual(content)
})
