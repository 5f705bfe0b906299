import { describe, expect, test } from "bun:test"
import { checkClock, type ClockReading } from "../../../src/tcb/measurement/clock.ts"
import { codeOf } from "./measured-boots.ts"

function at(resetCount: number, restartCount: number, clock: number): ClockReading {
  return { resetCount, restartCount, clock: BigInt(clock) }
}

const BEFORE = at(5, 0, 1000)

describe("the clock of a vtpm", () => {
  test("may stand still or go on within one boot", () => {
    expect(checkClock(BEFORE, at(5, 0, 1000), false)).toEqual(at(5, 0, 1000))
    expect(checkClock(BEFORE, at(5, 0, 1001), false)).toEqual(at(5, 0, 1001))
  })

  test("may go back when the vm was reset and the count moved on, as after a killed swtpm", () => {
    expect(checkClock(BEFORE, at(6, 0, 10), true)).toEqual(at(6, 0, 10))
  })

  test("keeps what it needs and nothing else of a quote", () => {
    expect(checkClock(undefined, { ...BEFORE, safe: true } as ClockReading, false)).toEqual(BEFORE)
  })

  const refused: [
    string,
    ClockReading | undefined,
    ClockReading,
    boolean | { resetCount: number },
    string,
  ][] = [
    ["a clock that goes back within a boot", BEFORE, at(5, 0, 999), false, "evidence_rollback"],
    ["a restored state: an older reset count", BEFORE, at(4, 0, 2000), false, "evidence_rollback"],
    ["a restored state at a start the mvm made", BEFORE, at(4, 0, 2000), true, "evidence_rollback"],
    ["a cloned state: a lower restart count", at(5, 1, 1000), at(5, 0, 2000), false, "evidence_rollback"],
    ["a reset that nobody saw", BEFORE, at(6, 0, 2000), false, "evidence_reset"],
    ["a resume that nobody saw, as after suspend to ram", BEFORE, at(5, 1, 2000), false, "evidence_reset"],
    ["a reset that was seen and did not reach the tpm", BEFORE, at(5, 0, 2000), true, "evidence_reset"],
    ["a resume before the first evidence", undefined, at(1, 1, 10), false, "evidence_reset"],
    ["one reset more than the mvm made", BEFORE, at(7, 0, 10), { resetCount: 6 }, "evidence_reset"],
    ["one reset less than the mvm made", undefined, at(5, 0, 10), { resetCount: 6 }, "evidence_rollback"],
  ]
  test.each(refused)("refuses %s", (_, previous, now, resetSeen, code) => {
    expect(codeOf(() => checkClock(previous, now, resetSeen))).toBe(code as never)
  })

  test("meets the count that the manager expects after a start", () => {
    expect(checkClock(BEFORE, at(7, 0, 10), { resetCount: 7 })).toEqual(at(7, 0, 10))
    expect(checkClock(undefined, at(7, 0, 10), { resetCount: 7 })).toEqual(at(7, 0, 10))
  })
})
