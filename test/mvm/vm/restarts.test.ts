import { describe, expect, test } from "bun:test"
import { Restarts } from "../../../src/mvm/vm/restarts.ts"

describe("a VM that ends again and again", () => {
  test("waits longer each time, and not for ever", () => {
    const restarts = new Restarts()
    let now = 0
    const delays = Array.from({ length: 10 }, () => {
      const delayMs = restarts.schedule("vm", () => {}, now)
      now += delayMs + 10
      return delayMs
    })
    restarts.close()
    expect(delays.slice(0, 4)).toEqual([0, 1000, 2000, 4000])
    expect(Math.max(...delays)).toBe(60_000)
  })

  test("begins anew when it ran for a while, and costs no other VM anything", () => {
    const restarts = new Restarts()
    restarts.schedule("vm", () => {}, 0)
    expect(restarts.schedule("other", () => {}, 1)).toBe(0)
    expect(restarts.schedule("vm", () => {}, 200_000)).toBe(0)
    restarts.close()
  })

  test("is started once, and not when that was called off", async () => {
    const restarts = new Restarts()
    const started: string[] = []
    const done = new Promise<void>((resolve) => restarts.schedule("a", () => resolve(void started.push("a"))))
    restarts.schedule("b", () => started.push("b"))
    expect(restarts.cancel("b")).toBe(true)
    expect(restarts.cancel("b")).toBe(false)
    await done
    expect(started).toEqual(["a"])
  })
})
