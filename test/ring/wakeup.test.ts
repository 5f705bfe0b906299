/**
 * No lost wake-up: both sides of the real code run in threads of their own, one atomic operation at a time, through
 * every order in which their operations can happen.
 */

import { afterAll, expect, test } from "bun:test"
import { freshRegion } from "./fresh-region.ts"
import { ASLEEP, KICKED, STATE, type SideTask } from "./stepper-worker.ts"

const RING_BYTES = 4096
const workers = [0, 1].map(() => new Worker(new URL("./stepper-worker.ts", import.meta.url)))
afterAll(() => workers.forEach((worker) => worker.terminate()))

interface Outcome {
  readonly producer: number
  readonly consumer: number
  /** At each step, which side went, and whether the other could have. */
  readonly choices: readonly { side: number; other: boolean }[]
}

/** Runs one order: `prefix` says who goes first; after it, the producer whenever it can. */
async function run(scenario: number, prefix: readonly number[]): Promise<Outcome> {
  const { memory } = freshRegion(RING_BYTES, true)
  const control = new Int32Array(new SharedArrayBuffer(32))
  control[4] = scenario
  workers.forEach((worker, side) => {
    worker.postMessage({ memory, ringBytes: RING_BYTES, control, side } as SideTask)
  })
  const choices: { side: number; other: boolean }[] = []
  for (;;) {
    const states = [await settled(control, 0), await settled(control, 1)]
    const able = [0, 1].filter((side) => states[side] === STATE.asking)
    if (able.length === 0) break
    const wanted = prefix[choices.length] ?? 0
    const side = able.includes(wanted) ? wanted : able[0]!
    choices.push({ side, other: able.length === 2 })
    Atomics.store(control, side, STATE.granted)
    Atomics.notify(control, side)
  }
  return { producer: control[2]!, consumer: control[3]!, choices }
}

/** Waits until a side asks for its next operation or has finished. */
async function settled(control: Int32Array, side: number): Promise<number> {
  for (;;) {
    const state = Atomics.load(control, side)
    if (state === STATE.asking || state === STATE.finished) return state
    const wait = Atomics.waitAsync(control, side, state)
    if (wait.async) await wait.value
  }
}

/** Every order, depth first: turn the last choice that had an alternative not yet tried. */
async function everyOrder(scenario: number, check: (outcome: Outcome) => void): Promise<number> {
  let prefix: number[] = []
  for (let runs = 1; ; runs++) {
    const outcome = await run(scenario, prefix)
    check(outcome)
    const { choices } = outcome
    let turn = choices.length - 1
    while (turn >= 0 && !(choices[turn]!.other && choices[turn]!.side === 0)) turn--
    if (turn < 0) return runs
    prefix = [...choices.slice(0, turn).map(({ side }) => side), 1]
  }
}

for (const [scenario, records] of [
  [0, 1],
  [1, 2],
] as const) {
  test(`a consumer that sleeps beside ${records} unread records was kicked, in every order`, async () => {
    let asleepKicked = 0
    const runs = await everyOrder(scenario, ({ producer, consumer }) => {
      expect(consumer & ASLEEP).toBe(ASLEEP)
      const taken = consumer & 0xff
      if (taken < records) {
        expect(producer & KICKED).toBe(KICKED)
        asleepKicked++
      }
    })
    expect(runs).toBeGreaterThan(20)
    expect(asleepKicked).toBeGreaterThan(0)
  }, 120_000)
}

test("a producer that sleeps for room was kicked if room was given, in every order", async () => {
  let asleepKicked = 0
  const runs = await everyOrder(2, ({ producer, consumer }) => {
    const taken = consumer & 0xff
    if ((producer & ASLEEP) !== 0 && taken > 0) {
      expect(consumer & KICKED).toBe(KICKED)
      asleepKicked++
    }
    if ((producer & ASLEEP) === 0) expect(taken).toBeGreaterThan(0)
  })
  expect(runs).toBeGreaterThan(20)
  expect(asleepKicked).toBeGreaterThan(0)
}, 120_000)
