/** @module test/guest/link-client */

import { expect, spyOn, test } from "bun:test"
import { Log } from "../../src/lib/log.ts"
import { LinkClient } from "../../src/guest/link-client.ts"
import type { ByteStream } from "../../src/platform/virtio-port.ts"
import { ScriptedMvm } from "../mvm/scripted.ts"

const MEMBER = {
  bootId: new Uint8Array(16),
  kind: "agent",
  agentVersion: "test",
  mvmPublicKey: new Uint8Array(65),
  log: new Log({ level: "error", format: "text" }),
  ready: () => ({ canMap: false, mapping: "none", channels: [] }),
  onMessage: () => {},
} as const

test("an agent that is stopped while its stream is opened closes it, and its run ends", async () => {
  const opening = Promise.withResolvers<ByteStream>()
  const asked = Promise.withResolvers<void>()
  const done: string[] = []
  const client = new LinkClient({
    ...MEMBER,
    openStream: () => {
      asked.resolve()
      return opening.promise
    },
    onLinked: () => done.push("linked"),
    onLost: () => done.push("lost"),
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

test("a POKE from before the answer to the last HELLO begins no further epoch", async () => {
  const mvm = await ScriptedMvm.start()
  // However long linking takes here.
  const clock = spyOn(performance, "now").mockReturnValue(performance.now())
  try {
    const { client, member } = await mvm.member("a")
    const before = client.membership
    member.link.send("POKE", {})
    // The next tick of the client, and some.
    await Bun.sleep(1500)
    expect(client.membership).toBe(before)
  } finally {
    clock.mockRestore()
  }
})

test("a process that has just begun says HELLO at once", async () => {
  const clock = spyOn(performance, "now").mockReturnValue(5)
  const written: number[] = []
  const client = new LinkClient({
    ...MEMBER,
    openStream: async () => ({
      backlogBytes: 0,
      write: ({ length }) => void written.push(length),
      close() {},
    }),
    onLinked: () => {},
    onLost: () => {},
  })
  try {
    void client.run()
    for (let turn = 0; turn < 10; turn += 1) await undefined
    expect(written.length).toBe(1)
  } finally {
    clock.mockRestore()
    client.stop()
  }
})
