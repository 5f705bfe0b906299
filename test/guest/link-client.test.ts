/** @module test/guest/link-client */

import { expect, test } from "bun:test"
import { Log } from "../../src/lib/log.ts"
import { LinkClient } from "../../src/guest/link-client.ts"
import type { ByteStream } from "../../src/platform/virtio-port.ts"
import { until } from "../mvm/scripted-member.ts"
import { ScriptedMvm } from "../mvm/scripted.ts"

test("an agent that is stopped while its stream is opened closes it, and its run ends", async () => {
  const opening = Promise.withResolvers<ByteStream>()
  const asked = Promise.withResolvers<void>()
  const done: string[] = []
  const client = new LinkClient({
    bootId: new Uint8Array(16),
    kind: "agent",
    agentVersion: "test",
    mvmPublicKey: new Uint8Array(65),
    log: new Log({ level: "error", format: "text" }),
    openStream: () => {
      asked.resolve()
      return opening.promise
    },
    ready: () => ({ canMap: false, mapping: "none", channels: [] }),
    onLinked: () => done.push("linked"),
    onLost: () => done.push("lost"),
    onMessage: () => {},
  })
  const running = client.run()
  await asked.promise
  client.stop()
  opening.resolve({
    backlogBytes: 0,
    write: () => void done.push("wrote"),
    close: () => void done.push("closed"),
  })
  await running
  expect(done).toEqual(["closed", "lost"])
})

test("a HELLO that is due too soon after the last one is said a moment later, not at the next PING", async () => {
  const mvm = await ScriptedMvm.start()
  const { client, member } = await mvm.member("a")
  const before = client.membership
  const sinceMs = performance.now()
  member.link.send("POKE", {})
  await until(() => client.membership !== before && client.holds(client.membership))
  expect(performance.now() - sinceMs).toBeLessThan(5000)
})
