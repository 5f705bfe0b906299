/** @module test/cli/guest/copy-places */

import { describe, expect, test } from "bun:test"
import { planOf } from "../../../src/cli/guest/copy-places.ts"
import { MvmError } from "../../../src/lib/errors.ts"

describe("the places of a copy", () => {
  test("put files there where the last one names a VM", () => {
    expect(planOf(["a", "./b:c", "/d", "db:in/x y"])).toEqual({
      direction: "push",
      sources: ["a", "./b:c", "/d"],
      to: { target: "db", path: "in/x y" },
    })
    expect(planOf(["a", "db:"])).toMatchObject({ to: { target: "db", path: "" } })
    expect(planOf(["a", "db:x:y"])).toMatchObject({ to: { target: "db", path: "x:y" } })
  })

  test("take files from each VM in turn where the last one is here", () => {
    expect(planOf(["db:a", "web:b", "db:c", "./x:y"])).toEqual({
      direction: "pull",
      from: new Map([
        ["db", ["a", "c"]],
        ["web", ["b"]],
      ]),
      folder: "./x:y",
    })
  })

  test.each([
    [["a"], "an argument is missing"],
    [[], "an argument is missing"],
    [["a", "b"], "a: no VM is named"],
    [["db:a", "b", "c"], "b: no VM is named"],
    [["db:a", "web:b"], "one end of a copy is this machine"],
    [["a", "web:b", "db:c"], "one end of a copy is this machine"],
    [["a", "-x:b"], "-x:b: what stands before the colon is not the name of a VM"],
    [["a", ":b"], ":b: what stands before the colon"],
    [["a", "v m:b"], "v m:b: what stands before the colon"],
  ])("%j are refused", (places, message) => {
    let error: unknown
    try {
      planOf(places)
    } catch (caught) {
      error = caught
    }
    expect(error).toBeInstanceOf(MvmError)
    expect((error as MvmError).message).toStartWith(message)
    expect((error as MvmError).status).toBe(2)
  })
})
