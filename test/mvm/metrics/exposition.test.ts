/** @module test/mvm/metrics/exposition */

import { describe, expect, test } from "bun:test"
import { Counter, Histogram, exposition, gauge } from "../../../src/mvm/metrics/exposition.ts"
import { Meters } from "../../../src/mvm/metrics/meters.ts"
import { readExposition } from "./exposition-parser.ts"

describe("the text", () => {
  test("is what the specification says, escapes and all", () => {
    const family = gauge("a_bytes", "Says \\ and\nmore.", { 'quote " back \\ line \n end': 1.5 }, "of")
    expect(exposition([family])).toBe(
      '# HELP a_bytes Says \\\\ and\\nmore.\n# TYPE a_bytes gauge\na_bytes{of="quote \\" back \\\\ line \\n end"} 1.5\n',
    )
    const read = readExposition(exposition([family])).get("a_bytes")
    expect(read?.samples).toEqual([
      { name: "a_bytes", labels: { of: 'quote " back \\ line \n end' }, value: 1.5 },
    ])
  })

  test("of meters that counted nothing and of ones that did reads well", () => {
    const meters = new Meters()
    readExposition(exposition(meters.families()))
    meters.opened(3)
    meters.refused("denied")
    meters.refused("denied")
    meters.appraised(0.2, false)
    meters.finished(1000)
    meters.received()
    meters.revoked()
    const read = readExposition(exposition(meters.families()))
    const value = (name: string, labels = {}): number | undefined =>
      read.get(name)?.samples.find((sample) => Bun.deepEquals(sample.labels, labels))?.value
    expect(value("mvm_opens_total", { result: "opened" })).toBe(1)
    expect(value("mvm_opens_total", { result: "refused" })).toBe(2)
    expect(read.get("mvm_refusals_total")?.samples).toEqual([
      { name: "mvm_refusals_total", labels: { code: "denied" }, value: 2 },
    ])
    expect(value("mvm_content_bytes_total")).toBe(1000)
    expect(value("mvm_appraisals_total", { verdict: "refused" })).toBe(1)
  })
})

test("a counter takes no label value that was not announced", () => {
  const counter = new Counter("x_total", "X.", "code", ["a"])
  counter.add(1, "a")
  counter.add(1, "chosen by a VM")
  counter.add()
  expect(counter.family().samples).toEqual([{ labels: { code: "a" }, value: 1 }])
})

test("a histogram counts in every bucket that is wide enough, bounds included", () => {
  const histogram = new Histogram("x_seconds", "X.", [0.1, 1])
  for (const value of [0.05, 0.1, 0.5, 1, 9]) histogram.observe(value)
  const samples = histogram
    .family()
    .samples.map(({ suffix, labels, value }) => [suffix, labels?.["le"], value])
  expect(samples).toEqual([
    ["_bucket", "0.1", 2],
    ["_bucket", "1", 4],
    ["_bucket", "+Inf", 5],
    ["_sum", undefined, 10.65],
    ["_count", undefined, 5],
  ])
})

describe("the reader that the tests use", () => {
  const GOOD = '# HELP a_total A.\n# TYPE a_total counter\na_total{x="1"} 1\n'
  test("takes a good text", () => {
    expect(readExposition(GOOD).get("a_total")?.samples.length).toBe(1)
  })

  test.each([
    ["no end of the last line", GOOD.slice(0, -1)],
    ["a sample twice", `${GOOD}a_total{x="1"} 2\n`],
    ["a family twice", GOOD + GOOD],
    ["a sample before its type", "# HELP a_total A.\na_total 1\n"],
    ["a foreign sample", `${GOOD}b_total 1\n`],
    ["a counter without _total", "# HELP a A.\n# TYPE a counter\na 1\n"],
    ["a gauge with _total", "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n"],
    ["milliseconds", "# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n"],
    ["a raw line end in a label", GOOD.replace('"1"', '"\\x"')],
    ["no number", GOOD.replace(" 1\n", " one\n")],
    ["a comma too many", GOOD.replace('"1"', '"1",')],
    ["an empty line", `${GOOD}\n`],
  ])("refuses %s", (_name, text) => {
    expect(() => readExposition(text)).toThrow()
  })
})
