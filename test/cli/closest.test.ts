/** @module test/cli/closest */

import { expect, test } from "bun:test"
import { closest } from "../../src/cli/closest.ts"

const WORDS = ["create", "start", "stop", "rm", "list", "show", "--state", "--json"]

test.each([
  ["creat", "create"],
  ["crate", "create"],
  ["lst", "list"],
  ["shwo", "show"],
  ["crate", "create"],
  ["sopt", undefined],
  ["--jsn", "--json"],
  ["--stat", "--state"],
  ["help", undefined],
  ["exec", undefined],
  ["", undefined],
  ["create", "create"],
])("takes %p for %p", (typed, meant) => {
  expect(closest(typed, WORDS)).toBe(meant as string)
})
