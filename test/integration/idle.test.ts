/**
 * @module test/integration/idle
 *
 * What an open channel costs while nothing goes through it: processor time of its two ends, which other
 * work on the machine adds little to.
 */

import { expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { hostForFile } from "./host.ts"
import { procFile } from "./processes.ts"

const WATCHED_MS = 3000

/** Of one core, for both ends together: the daemons turn no faster for a channel that is open. */
const SHARE = 0.01

/** Until what was compiled and collected on the channel's behalf is. */
const SETTLE_MS = 2000

const host = hostForFile({ members: ["a", "b"] })

/** Nanoseconds on a processor so far, all threads. @spec Linux Documentation/scheduler/sched-stats.rst */
function processorNs(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const threads = [...new Bun.Glob("*/schedstat").scanSync({ cwd: `/proc/${pid}/task` })]
    return threads.reduce(
      (all, path) => all + Number(procFile(`${pid}/task/${path}`).toString().split(" ")[0]),
      sum,
    )
  }, 0)
}

test("an open channel through which nothing goes costs less than a hundredth of a core", async () => {
  const receiver = await host().recv("b", join(host().folder, "received"), "--json")
  const sender = host().send("a", "b", "pipe", "--wait", "20s", "--json")
  const input = sender.process.stdin as Bun.FileSink
  input.write("first")
  await input.flush()
  await host().until("the first bytes", () => readFileSync(join(host().folder, "received")).length === 5)
  await Bun.sleep(SETTLE_MS)
  const pids = [sender.pid, receiver.pid]
  const before = processorNs(pids)
  const beganMs = performance.now()
  await Bun.sleep(WATCHED_MS)
  const share = (processorNs(pids) - before) / 1e6 / (performance.now() - beganMs)
  expect(share).toBeGreaterThan(0)
  expect(share).toBeLessThan(SHARE)
  input.write(" last")
  await input.end()
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
  expect(readFileSync(join(host().folder, "received"), "utf8")).toBe("first last")
})
