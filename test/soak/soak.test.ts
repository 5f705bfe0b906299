/**
 * @module test/soak/soak.test
 *
 * The bounded form of scripts/soak: few members, some dozens of channels at once, half a minute.
 */

import { expect, test } from "bun:test"
import { measureFlood } from "./flood.ts"
import { soakLocal } from "./local.ts"

const CHANNELS = 48

test(`${CHANNELS} channels at once among local members end without an error, every digest right and nothing left`, async () => {
  const result = await soakLocal({ minutes: 0.4, members: 6, channels: CHANNELS, note: () => {} })
  expect(result.errors).toEqual([])
  expect(result.peakOpen).toBeGreaterThan(CHANNELS / 2)
  expect(result.channels).toBeGreaterThanOrEqual(CHANNELS)
  expect(result.auditHolds).toBe(true)
  expect(result.left).toEqual({ channels: 0, usedBytes: 0 })
  expect(result.mvm.isFlat).toBe(true)
}, 180_000)

test("a member that asks without end neither keeps others from their channels nor fills the MVM's memory", async () => {
  const { floodedP50Ms, grownMb } = await measureFlood("requests", 1)
  expect(floodedP50Ms).toBeGreaterThan(0)
  expect(grownMb).toBeLessThan(64)
}, 180_000)
