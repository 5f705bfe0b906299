import { expect, test } from "bun:test"
import type { AgentChannel } from "../../../src/guest/agent-channels.ts"
import { Carriers } from "../../../src/guest/carriers/carriers.ts"
import { BulkQueue } from "../../../src/wire/bulk-queue.ts"

const CHANNEL = { channelId: new Uint8Array(16), key: "00", asker: false, region: undefined } as AgentChannel

function begin(carriers: Carriers, uid: number) {
  const command = { record: () => {}, taken: () => {}, fail: () => {} }
  return carriers.begin(CHANNEL, { uid, command, kick: () => {} })
}

test("an ordinary user has so many channels carried at once, whatever others have; the agent's own user any number", () => {
  const carriers = new Carriers(new BulkQueue({ ready: () => false, send: () => {} }))
  expect([carriers.mayMap(1000), carriers.mayMap(0)]).toEqual([false, true])
  const first = begin(carriers, 1000)
  for (let count = 1; count < 32; count++) begin(carriers, 1000)
  expect(() => begin(carriers, 1000)).toThrow("the agent carries 32 channels of this user, and no more")
  begin(carriers, 1001)
  for (let count = 0; count < 100; count++) begin(carriers, 0)
  carriers.end(first)
  carriers.end(first)
  begin(carriers, 1000)
  expect(() => begin(carriers, 1000)).toThrow("no more")
})
