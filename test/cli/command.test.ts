/** @module test/cli/command */

import { describe, expect, test } from "bun:test"
import { Call } from "../../src/cli/command.ts"
import { MvmError } from "../../src/lib/errors.ts"

function call(options: Record<string, unknown>, ...args: string[]): Call {
  return new Call(args, options, [])
}

function refusal(work: () => unknown): string {
  try {
    work()
  } catch (error) {
    if (error instanceof MvmError && error.code === "usage") return error.message
    throw error
  }
  throw new Error("nothing was refused")
}

describe("an option", () => {
  test("that is absent gives what stands for it", () => {
    const absent = call({})
    expect(absent.text("state")).toBeUndefined()
    expect(absent.texts("tag")).toEqual([])
    expect(absent.flag("json")).toBe(false)
    expect(absent.given("wait")).toBe(false)
    expect(absent.integer("cpus", 1, { min: 1, max: 8 })).toBe(1)
    expect(absent.sizeBytes("arena", 5)).toBe(5)
    expect(absent.durationMs("lease", 7)).toBe(7)
    expect(absent.oneOf("net", ["none", "user"], "none")).toBe("none")
  })

  test("without its optional value is given and keeps what stands for it", () => {
    const bare = call({ wait: true })
    expect(bare.given("wait")).toBe(true)
    expect(bare.durationMs("wait", 3_600_000)).toBe(3_600_000)
  })

  test("given twice counts as last given, or as a list where lists are taken", () => {
    const twice = call({ tag: ["a", "b"] })
    expect(twice.text("tag")).toBe("b")
    expect(twice.texts("tag")).toEqual(["a", "b"])
  })

  test("with a bad value is refused by its name as it is typed", () => {
    const range = { min: 1, max: 256 }
    expect(refusal(() => call({ cpus: "0" }).integer("cpus", 1, range))).toBe(
      "--cpus: 0 is not a whole number from 1 to 256",
    )
    expect(refusal(() => call({ cpus: "1.5" }).integer("cpus", 1, range))).toStartWith("--cpus: 1.5")
    expect(refusal(() => call({ logFormat: "xml" }).oneOf("logFormat", ["json", "text"], "text"))).toBe(
      "--log-format: xml is none of json, text",
    )
    expect(refusal(() => call({ arena: "3x" }).sizeBytes("arena", 1))).toBe("--arena: 3x is not a size")
    expect(refusal(() => call({ lease: "x" }).durationMs("lease", 1))).toBe("--lease: x is not a time")
    expect(refusal(() => call({ wait: "25d" }).durationMs("wait", 1))).toBe(
      "--wait: 25d is longer than 24 days",
    )
    expect(refusal(() => call({ stateKey: true }).text("stateKey"))).toBe("--state-key needs a value")
  })
})

test("an argument that is not there is refused", () => {
  expect(call({}, "web").arg(0)).toBe("web")
  expect(refusal(() => call({}).arg(0))).toContain("missing")
})
