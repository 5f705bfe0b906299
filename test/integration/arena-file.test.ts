/** @module test/integration/arena-file */

import { expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { hostForFile } from "./host.ts"

const host = hostForFile({})

test("the arena's file goes with the MVM when nobody can have it mapped, and stays for members that run", async () => {
  const { path } = (await host().status()).arena
  expect(existsSync(path)).toBe(true)
  expect(await host().stopServe()).toBe(0)
  expect(existsSync(path)).toBe(false)
  await host().serve()
  expect((await host().status()).arena.path).toBe(path)
  await host().member("a")
  expect(await host().stopServe()).toBe(0)
  expect(existsSync(path)).toBe(true)
  await host().serve()
  await host().linked("a")
})
