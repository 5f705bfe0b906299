/**
 * @module test/faults/faults.test
 *
 * The bounded form of scripts/faults: every process killed once and every disturbance made once, each at another
 * transition.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { MESSAGES } from "../../src/wire/messages.ts"
import { describePoint, everyPoint, VICTIMS } from "./point.ts"
import { Rig } from "./rig.ts"

/** Of some 780 points each 29th: a number prime to how many faults stand at one transition. */
const STEP = 29

/** Said when something is over already, asked beside it, or only by VMs. */
const ELSEWHERE = new Set([
  ...["FAILED", "CANCEL", "WITHDRAW", "ABORT", "REVOKE", "STOP"],
  ...["LOG", "READ", "PING", "PEERS", "PEER_LIST", "STANDING", "OPINION", "STAGES"],
  ...["EVENTS", "EVENT_LOG", "MEMORY"],
  "DEPOSITS",
])

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
    const isSaid = sender === 0 && point.transfer.mode !== "deposited"
    if (isSaid || receiver === 0) expect(deliveredBytes).toBe(point.transfer.bytes)
  }, 60_000)
}

test("the points taken have every process killed, every disturbance and every kind of transfer among them", () => {
  const faults = points.map(({ fault }) => ("victim" in fault ? `${fault.kind} ${fault.victim}` : fault.kind))
  for (const victim of VICTIMS) expect(faults).toContain(`kill ${victim}`)
  for (const kind of ["cut", "drop", "repeat"]) expect(faults).toContain(kind)
  const modes = new Set(points.map(({ transfer }) => transfer.mode))
  for (const { transfer } of all) expect(modes).toContain(transfer.mode)
  expect(all.length).toBeGreaterThan(700)
})

test("every message that opens, carries, ends or begins something has a fault before and after it", () => {
  const phases = new Map<string, Set<string>>()
  for (const { moment } of all) {
    if ("afterMs" in moment) continue
    phases.set(moment.message, (phases.get(moment.message) ?? new Set()).add(moment.phase))
  }
  const messages = Object.keys(MESSAGES.rows).filter((name) => !ELSEWHERE.has(name))
  expect([...phases.keys()].toSorted()).toEqual(messages.toSorted())
  for (const [message, seen] of phases) expect([message, seen.size]).toEqual([message, 2])
})
