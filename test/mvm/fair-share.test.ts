import { describe, expect, test } from "bun:test"
import { FairShares, type Turns } from "../../src/mvm/fair-share.ts"
import { concat } from "../../src/lib/bytes.ts"
import { seeded } from "../ring/fresh-region.ts"

/** A clock that goes on only by what is handled and by resting. */
class Clock implements Turns {
  nowMs = 0
  workedMs = 0
  readonly rests: number[] = []

  now(): number {
    return this.nowMs
  }

  usedMs(): number {
    return this.workedMs
  }

  work(ms: number): void {
    this.workedMs += ms
    this.nowMs += ms
  }

  async rest(ms: number): Promise<void> {
    this.rests.push(ms)
    this.nowMs += ms
    // Others go first.
    await new Promise((resolve) => setImmediate(resolve))
  }
}

test("all bytes are handled once, in their order, however they come", async () => {
  const random = seeded(5)
  const clock = new Clock()
  const all = new FairShares(clock)
  const handled: Uint8Array[] = []
  const share = all.join({
    handle: (bytes) => {
      handled.push(bytes.slice())
      clock.work(random(3) / 2)
    },
    pause: () => {},
  })
  const other = all.join({ handle: () => {}, pause: () => {} })
  const chunks = Array.from({ length: 40 }, () => new Uint8Array(random(9000)).map(() => random(256)))
  for (const chunk of chunks) {
    const lent = chunk.slice()
    share.deliver(lent)
    if (random(3) === 0) other.deliver(new Uint8Array(1))
    // The memory of an event is used again by the next.
    lent.fill(0)
    if (random(4) === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  while (concat(...handled).length < concat(...chunks).length) {
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(Buffer.compare(concat(...handled), concat(...chunks))).toBe(0)
})

describe("a member that floods", () => {
  /** Runs a flood of `slices`, each a millisecond dear, beside a member heard every 10 ms or never. */
  async function flood(slices: number, isWanted: boolean): Promise<{ clock: Clock; pauses: boolean[] }> {
    const clock = new Clock()
    const all = new FairShares(clock)
    const pauses: boolean[] = []
    let left = slices
    const other = all.join({ handle: () => {}, pause: () => {} })
    const share = all.join({
      handle: () => {
        clock.work(1)
        left -= 1
        if (isWanted && left % 10 === 0) other.deliver(new Uint8Array(1))
      },
      pause: (isPaused) => pauses.push(isPaused),
    })
    if (isWanted) other.deliver(new Uint8Array(1))
    share.deliver(new Uint8Array(slices * 2048))
    while (left > 0) await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setImmediate(resolve))
    return { clock, pauses }
  }

  test("gets a tenth of the time while another is active, and its socket is not read while it rests", async () => {
    const { clock, pauses } = await flood(200, true)
    const rested = clock.rests.reduce((sum, ms) => sum + ms, 0)
    expect(clock.workedMs / (clock.workedMs + rested)).toBeLessThan(0.13)
    expect(pauses).toEqual([true, false])
  })

  test("gets all of it while nobody else wants any, and still lets others in between", async () => {
    const { clock } = await flood(200, false)
    expect(clock.rests.length).toBeGreaterThan(100)
    expect(Math.max(...clock.rests)).toBe(0)
  })
})

test("a stream that ended is handled no further", async () => {
  const clock = new Clock()
  const all = new FairShares(clock)
  let handled = 0
  const share = all.join({
    handle: () => {
      handled += 1
      clock.work(1)
    },
    pause: () => {},
  })
  share.deliver(new Uint8Array(100_000))
  all.leave(share)
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
  expect(handled).toBe(1)
})
