/**
 * @module test/fuzz/reach.test
 *
 * That each search gets past what its decoder looks at first: a label, a header, a key of a file. A target all of
 * whose inputs are refused at the door finds nothing and looks like one that has nothing to find.
 */

import { describe, expect, test } from "bun:test"
import { Random } from "./random.ts"
import { corpusFiles, outcomeOf, type Target } from "./target.ts"
import { TARGETS } from "./targets.ts"

const GENERATED = 600

/** These must refuse whatever anybody can make. */
const REFUSES_ALL = new Set(["signed-reference"])

/** Made events never add up to the registers of a real boot, which are what the log is held against. */
const ONLY_REAL_ONES_ARE_TAKEN = new Set(["event-log"])

/** Captured ones of these belong to a question, or a key, of another MVM than the target's. */
const OF_ANOTHER_MVM = new Set(["tpm.NV_Read", "audit-export"])

async function anyTaken(target: Target, inputs: Iterable<Uint8Array>): Promise<boolean> {
  for (const input of inputs) if ((await outcomeOf(target, input.slice())).isTaken) return true
  return false
}

function* generated({ generate }: Target): Generator<Uint8Array> {
  const random = new Random(7)
  for (let count = 0; generate && count < GENERATED; count++) yield generate(random)
}

const names = (targets: readonly Target[]): string[] => targets.map(({ name }) => name)

async function without(targets: readonly Target[], inputs: (target: Target) => Iterable<Uint8Array>) {
  const found = await Promise.all(targets.map((target) => anyTaken(target, inputs(target))))
  return names(targets.filter((_, index) => !found[index]))
}

describe("of every decoder there is an input that it takes", () => {
  test("among its seeds or what its grammar makes", async () => {
    const refusing = await without(TARGETS, function* (target) {
      yield* target.seeds?.() ?? []
      for (const { bytes } of corpusFiles("seeds", target.name)) yield bytes
      yield* generated(target)
    })
    expect(refusing).toEqual([...REFUSES_ALL])
  }, 60_000)

  test("among what its grammar makes, where it has one", async () => {
    const made = TARGETS.filter(({ generate }) => generate !== undefined)
    expect(await without(made, generated)).toEqual([...ONLY_REAL_ONES_ARE_TAKEN])
  }, 60_000)

  test("among its captured seeds, where it has some: those of an older wire are captured anew", async () => {
    const captured = TARGETS.filter(({ name }) => corpusFiles("seeds", name).length > 0)
    const stale = await without(captured, ({ name }) => corpusFiles("seeds", name).map(({ bytes }) => bytes))
    expect(captured.length).toBeGreaterThan(30)
    expect(stale).toEqual([...OF_ANOTHER_MVM])
  })
})
