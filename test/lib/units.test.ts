/** @module test/lib/units */

import { expect, test } from "bun:test"
import { MvmError } from "../../src/lib/errors.ts"
import { formatAge, formatDuration, formatSize, parseDuration, parseSize } from "../../src/lib/units.ts"

function refusal(work: () => unknown): MvmError {
  try {
    work()
  } catch (error) {
    if (error instanceof MvmError) return error
    throw error
  }
  throw new Error("nothing was refused")
}

test.each([
  ["0", 0],
  ["4096", 4096],
  ["512K", 512 * 2 ** 10],
  ["256M", 256 * 2 ** 20],
  ["256 MiB", 256 * 2 ** 20],
  ["1.5g", 1.5 * 2 ** 30],
  ["2TB", 2 * 2 ** 40],
])("reads the size %s as %d bytes", (text, bytes) => {
  expect(parseSize(text, "--arena")).toBe(bytes)
})

test.each(["", "M", "-1", "3x", "1e3", "0x10", "1,5M", "9999999T", "1.0000001", "12 M B"])(
  "refuses the size %p and names the option",
  (text) => {
    const error = refusal(() => parseSize(text, "--arena"))
    expect(error.code).toBe("usage")
    expect(error.message).toBe(`--arena: ${text} is not a size`)
    expect(error.hint).toContain("256M")
  },
)

test.each([
  ["250ms", 250],
  ["10", 10_000],
  ["90s", 90_000],
  ["5m", 300_000],
  ["1.5h", 5_400_000],
  ["1d", 86_400_000],
  ["2 H", 7_200_000],
])("reads the time %s as %d ms", (text, milliseconds) => {
  expect(parseDuration(text, "--wait")).toBe(milliseconds)
})

test.each(["", "s", "-5s", "5w", "dump.sql", "1e3", "99999999999999d"])(
  "refuses the time %p and names the option",
  (text) => {
    const error = refusal(() => parseDuration(text, "--wait"))
    expect(error.code).toBe("usage")
    expect(error.message).toBe(`--wait: ${text} is not a time`)
  },
)

test("writes sizes and times for people", () => {
  expect([0, 1023, 1024, 1536, 10 * 2 ** 20, 5 * 2 ** 40].map(formatSize)).toEqual([
    "0 B",
    "1023 B",
    "1.00 KiB",
    "1.50 KiB",
    "10.0 MiB",
    "5.00 TiB",
  ])
  expect([0, 850, 12_340, 65_000, 7_500_000].map(formatDuration)).toEqual([
    "0 ms",
    "850 ms",
    "12.3 s",
    "1 m 05 s",
    "2 h 05 m",
  ])
  expect([0, 99.9, 100, 5999, 6000, 172_799, 172_800].map(formatAge)).toEqual([
    "0s",
    "99s",
    "1m",
    "99m",
    "1h",
    "47h",
    "2d",
  ])
})
