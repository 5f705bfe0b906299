/** @module test/integration/cut-file */

import { expect, test } from "bun:test"
import { closeSync, constants, openSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { sha256 } from "../../src/lib/crypto.ts"
import { hostForFile } from "./host.ts"
import { procFile } from "./processes.ts"

const LENGTH = 64 * 2 ** 20
const host = hostForFile({ members: ["a", "b"] })

test("a file that is cut short while it is sent ends there: nobody dies, and both ends agree on what was sent", async () => {
  const [file, pipe] = ["file", "pipe"].map((name) => join(host().folder, name)) as [string, string]
  writeFileSync(file, Buffer.alloc(LENGTH, "content of no particular kind, "))
  expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0)
  const output = openSync(pipe, constants.O_RDWR)
  const receiver = await host().recv("b", output)
  const sender = host().spawn(["guest", "send", "b", file, "--local", "a", "--wait", "10s", "--json"])
  const position = (): number => {
    const infos = [...new Bun.Glob("*").scanSync({ cwd: `/proc/${sender.pid}/fdinfo`, onlyFiles: false })]
    const texts = infos.map((fd) => procFile(`${sender.pid}/fdinfo/${fd}`).toString())
    return Math.max(...texts.map((text) => Number(/^pos:\s+(\d+)$/m.exec(text)?.[1] ?? 0)))
  }
  // Nobody reads what the receiver writes, so the sender stands still in the middle.
  await host().until("the sender to have begun", () => position() > 2 ** 20)
  truncateSync(file, 2 ** 20)
  const input = openSync(pipe, constants.O_RDONLY)
  const reader = Bun.spawn(["cat"], { stdin: input, stdout: "pipe" })
  closeSync(input)
  const received = new Response(reader.stdout).bytes()
  expect(await sender.over()).toBe(0)
  expect(await receiver.over()).toBe(0)
  closeSync(output)
  const bytes = await received
  expect(bytes.length).toBeLessThan(LENGTH)
  expect(bytes.length).toBeGreaterThanOrEqual(2 ** 20)
  const { bytes: said } = JSON.parse(
    sender
      .stderr()
      .split("\n")
      .find((line) => line.startsWith("{"))!,
  ) as {
    bytes: number
  }
  expect(said).toBe(bytes.length)
  expect(sha256(bytes)).toEqual(sha256(Buffer.alloc(bytes.length, "content of no particular kind, ")))
})
