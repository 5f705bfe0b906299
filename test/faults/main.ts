/**
 * @module test/faults/main
 *
 * The long form of the fault suite: a fault at every transition, then at random times until the count is full.
 */

import { parseArgs } from "node:util"
import { seeded } from "../ring/fresh-region.ts"
import { describePoint, everyPoint, randomPoint, type FaultPoint } from "./point.ts"
import { Rig } from "./rig.ts"

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "1000" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    jobs: { type: "string", default: "2" },
    json: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
  },
})

const random = seeded(Number(values.seed))

function* points(): Generator<FaultPoint> {
  for (const point of everyPoint()) {
    if (values.only === undefined || describePoint(point).includes(values.only)) yield point
  }
  if (values.only === undefined) for (;;) yield randomPoint(random)
}

const failures: { point: string; what: string }[] = []
const counts = { injected: 0, notReached: 0, delivered: 0, bytes: 0 }
const wanted = Number(values.count)
const startedMs = Date.now()

/** Takes point after point on a host of its own. */
async function work(next: Generator<FaultPoint>): Promise<void> {
  let rig = await Rig.start()
  try {
    for (const point of next) {
      if (counts.injected >= wanted) return
      const title = describePoint(point)
      try {
        const injected = await rig.inject(point)
        if (injected.reached) counts.injected += 1
        else counts.notReached += 1
        if (injected.sender === 0) counts.delivered += 1
        counts.bytes += injected.deliveredBytes
        if (values.verbose) process.stderr.write(`${title}: ${JSON.stringify(injected)}\n`)
      } catch (error) {
        counts.injected += 1
        const what = (error as Error).message.split("\n").slice(0, 40).join("\n    ")
        failures.push({ point: title, what })
        process.stderr.write(`${title}:\n    ${what}\n`)
        // What follows begins with everything in order.
        await rig.end().catch((left: Error) => process.stderr.write(`    ${left.message}\n`))
        rig = await Rig.start()
      }
    }
  } finally {
    await rig.end()
  }
}

const shared = points()
await Promise.all(Array.from({ length: Number(values.jobs) }, () => work(shared)))
const seconds = Math.round((Date.now() - startedMs) / 1000)
if (values.json) process.stdout.write(`${JSON.stringify({ ...counts, failures, seconds })}\n`)
else {
  process.stdout.write(
    `${counts.notReached} moments did not come; ${counts.delivered} transfers delivered all the same, ` +
      `${counts.bytes} bytes held against what was sent; ${seconds} s\n` +
      `${counts.injected} faults injected, ${failures.length} broken promises\n`,
  )
}
process.exitCode = failures.length === 0 ? 0 : 1
