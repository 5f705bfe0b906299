/** @module test/lib/health */

import { expect, test } from "bun:test"
import { fail, isOlder, judge, ok, versionNumbers, warn } from "../../src/lib/health.ts"

test("checks are judged in order; one may find several things, or nothing", () => {
  const findings = judge(
    [
      { name: "one", judge: (facts: { n: number }) => ok(`n is ${facts.n}`) },
      { name: "none", judge: () => undefined },
      { name: "two", judge: () => [warn("a", "mend a"), fail("b", "mend b")] },
    ],
    { n: 3 },
  )
  expect(findings).toEqual([
    { check: "one", level: "ok", text: "n is 3" },
    { check: "two", level: "warn", text: "a", remedy: "mend a" },
    { check: "two", level: "fail", text: "b", remedy: "mend b" },
  ])
})

test("versions are compared number by number", () => {
  expect(versionNumbers("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)")).toEqual([7, 2, 22])
  expect(isOlder("7.2", [7, 2])).toBe(false)
  expect(isOlder("7.10.1", [7, 2])).toBe(false)
  expect(isOlder("6.9", [7, 2])).toBe(true)
  expect(isOlder("7", [7, 0, 1])).toBe(true)
  expect(isOlder("10.0", [7, 2])).toBe(false)
  expect(isOlder("no number", [0])).toBe(true)
})
