/** @module test/mvm/channels/traffic */

import { expect, test } from "bun:test"
import { Log } from "../../../src/lib/log.ts"
import type { Channel } from "../../../src/mvm/channels/channel.ts"
import { Traffic } from "../../../src/mvm/channels/traffic.ts"
import type { ArenaMemory } from "../../../src/mvm/memory/channel-memory.ts"
import { openBetween } from "../scripted-member.ts"
import { ScriptedMvm } from "../scripted.ts"

/** Where the words are, per layout: tail and head of ring 0 and ring 1. */
const WORDS = { tail0: 0x100, head0: 0x180, tail1: 0x380, head1: 0x400 } as const

async function opened({ mapped } = { mapped: true }): Promise<{
  channel: Channel
  traffic: Traffic
  write(word: keyof typeof WORDS, units: number): void
}> {
  const mvm = await ScriptedMvm.start()
  const [a, b] = [await mvm.member("a"), await mvm.member("b")]
  a.canMap = mapped
  await a.relink()
  await openBetween(a, b)
  const { channels, arena } = mvm.context
  const [channel] = channels.all()
  const traffic = new Traffic(channels, new Log({ level: "error", format: "text" }))
  // The test says when it looks.
  traffic.stop()
  return {
    channel: channel!,
    traffic,
    write: (word, units) => {
      arena.write(
        (channel!.memory as ArenaMemory).region,
        WORDS[word],
        new Uint8Array(new Uint32Array([units]).buffer),
      )
    },
  }
}

test("what went through each ring is counted in units of 64 bytes, with its rate", async () => {
  const { channel, traffic, write } = await opened()
  expect(traffic.of(channel)).toBeUndefined()
  // Whole milliseconds: rates are then exact.
  const start = Math.round(performance.now())
  traffic.look(start)
  expect(traffic.of(channel)).toMatchObject([{ bytes: 0 }, { bytes: 0 }])
  write("tail0", 100)
  write("head0", 90)
  write("tail1", 1)
  traffic.look(start + 1000)
  expect(traffic.of(channel)).toEqual([
    { bytes: 6400, bytesPerSecond: 6400 },
    { bytes: 64, bytesPerSecond: 64 },
  ])
  traffic.look(start + 3000)
  expect(traffic.of(channel)).toEqual([
    { bytes: 6400, bytesPerSecond: 0 },
    { bytes: 64, bytesPerSecond: 0 },
  ])
})

test("records that are relayed are counted, with their rate", async () => {
  const { channel, traffic } = await opened({ mapped: false })
  expect(channel.transport).toBe("relay")
  const start = Math.round(performance.now())
  traffic.look(start)
  expect(traffic.of(channel)).toMatchObject([{ bytes: 0 }, { bytes: 0 }])
  traffic.relayed(channel, 0, 1000)
  traffic.relayed(channel, 0, 500)
  traffic.relayed(channel, 1, 10)
  traffic.look(start + 1000)
  expect(traffic.of(channel)).toEqual([
    { bytes: 1500, bytesPerSecond: 1500 },
    { bytes: 10, bytesPerSecond: 10 },
  ])
})

test("a cursor that goes round goes on", async () => {
  const { channel, traffic, write } = await opened()
  const start = Math.round(performance.now())
  const last = 2 ** 32 - 10
  // Not believed in so short a time, but where counting goes on from.
  write("tail0", last)
  write("head0", last)
  traffic.look(start)
  write("tail0", 20)
  write("head0", 20)
  traffic.look(start + 1000)
  expect(traffic.of(channel)?.[0]).toEqual({ bytes: 30 * 64, bytesPerSecond: 30 * 64 })
})

test("cursors that no ring could have count nothing", async () => {
  const { channel, traffic, write } = await opened()
  const start = Math.round(performance.now())
  traffic.look(start)
  const lies: [number, number][] = [
    // More than a ring holds.
    [1000, 0],
    // The reader before the writer.
    [0, 5],
    // Backwards: a whole round in a second.
    [2 ** 32 - 1, 2 ** 32 - 1],
  ]
  for (const [index, [tail, head]] of lies.entries()) {
    write("tail0", tail)
    write("head0", head)
    traffic.look(start + 1000 * (2 * index + 1))
    expect(traffic.of(channel)?.[0]).toEqual({ bytes: 0, bytesPerSecond: 0 })
    write("tail0", 0)
    write("head0", 0)
    traffic.look(start + 1000 * (2 * index + 2))
    expect(traffic.of(channel)?.[0].bytes).toBeLessThan(64 * 100)
  }
})
