/**
 * @module test/soak/main
 *
 * Load for long: many local members, two VMs, or a member that floods. Prints what was seen; exits 1 when an error
 * occurred, a digest was wrong, memory grew, or a flood cost others more than it may.
 */

import { parseArgs } from "node:util"
import { FLOODS, measureFlood } from "./flood.ts"
import { soakLocal } from "./local.ts"
import { soakVms } from "./vms.ts"

/** The greatest ratio of the median open time, and growth of the MVM's memory, that one flooding member may cause. */
const FLOOD_RATIO = 1.5
const FLOOD_MB = 64

const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    members: { type: "string", default: "64" },
    channels: { type: "string", default: "500" },
    vms: { type: "boolean", default: false },
    flood: { type: "boolean", default: false },
    rounds: { type: "string", default: "6" },
    json: { type: "boolean", default: false },
  },
})

const note = (line: string): void => void process.stderr.write(`soak: ${line}\n`)

async function run(): Promise<{ result: unknown; complaints: string[] }> {
  if (values.flood) {
    const result = []
    for (const flood of FLOODS) {
      const one = await measureFlood(flood, Number(values.rounds))
      note(JSON.stringify(one))
      result.push(one)
    }
    const complaints = result
      .filter(({ ratio, grownMb }) => ratio > FLOOD_RATIO || grownMb > FLOOD_MB)
      .map(
        ({ flood, ratio, grownMb }) =>
          `${flood}: opens take ${ratio.toFixed(2)} times, ${grownMb.toFixed(0)} MB more`,
      )
    return { result, complaints }
  }
  if (values.vms) {
    const result = await soakVms(Number(values.minutes ?? 10), note)
    return { result, complaints: [...result.errors, ...(result.mvm.isFlat ? [] : ["the MVM's memory grew"])] }
  }
  const result = await soakLocal({
    minutes: Number(values.minutes ?? 15),
    members: Number(values.members),
    channels: Number(values.channels),
    note,
  })
  const complaints = result.errors.slice(0, 10)
  if (!result.mvm.isFlat) complaints.push("the MVM's memory grew")
  if (!result.agents.isFlat) complaints.push("the agents' memory grew")
  if (!result.auditHolds) complaints.push("the audit chain does not hold")
  if (result.left.channels + result.left.usedBytes > 0) complaints.push("channels or memory were left")
  if (result.peakOpen < Number(values.channels) * 0.9)
    complaints.push(`only ${result.peakOpen} channels at once`)
  return { result: { ...result, errors: result.errors.length }, complaints }
}

const { result, complaints } = await run()
process.stdout.write(`${JSON.stringify(result, null, values.json ? undefined : 2)}\n`)
for (const complaint of complaints) note(complaint)
process.exitCode = complaints.length === 0 ? 0 : 1
