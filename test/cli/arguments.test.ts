/** @module test/cli/arguments */

import { expect, test } from "bun:test"
import { argumentAsTyped, asTyped } from "../../src/cli/arguments.ts"

test("values that look like numbers stay as they were typed", () => {
  const argv = [
    "db",
    "--service",
    "007",
    "--tag",
    "1e3",
    "--tag=0x10",
    "--wait",
    "5m",
    "--",
    "--service",
    "8",
  ]
  expect(asTyped({ service: 7, tag: [1000, 16], wait: "5m", json: true }, argv)).toEqual({
    service: "007",
    tag: ["1e3", "0x10"],
    wait: "5m",
    json: true,
  })
  expect(asTyped({ logFormat: 1 }, ["--log-format", "01"])).toEqual({ logFormat: "01" })
})

test("a number that nobody typed is left alone", () => {
  expect(asTyped({ limit: 100 }, [])).toEqual({ limit: 100 })
})

test("an argument after a flag stays as it was typed", () => {
  expect(argumentAsTyped(7, ["--quiet", "007"])).toBe("007")
  expect(argumentAsTyped("web", ["web"])).toBe("web")
})
