/**
 * @module test/faults/faults.test
 *
 * The bounded form of scripts/faults: every process killed once and every disturbance made once, each at another
 * transition.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { describePoint, everyPoint, VICTIMS } from "./point.ts"
import { Rig } from "./rig.ts"

/** Of some 390 points each 17th: a number prime to how many faults stand at one transition. */
const STEP = 17

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
}, 60_000)
afterAll(async () => rig.end(), 60_000)

const all = everyPoint()
const points = all.filter((_, index) => index % STEP === 0)

for (const point of points) {
  test(`nothing is lost, invented or left behind: ${describePoint(point)}`, async () => {
    const { sender, receiver, deliveredBytes } = await rig.inject(point)
    if (sender === 0 || receiver === 0) expect(deliveredBytes).toBe(point.transfer.bytes)
  }, 60_000)
}

test("the points taken have every process killed and every disturbance among them", () => {
  const faults = points.map(({ fault }) => ("victim" in fault ? `${fault.kind} ${fault.victim}` : fault.kind))
  for (const victim of VICTIMS) expect(faults).toContain(`kill ${victim}`)
  for (const kind of ["cut", "drop", "repeat"]) expect(faults).toContain(kind)
  expect(all.length).toBeGreaterThan(300)
})
