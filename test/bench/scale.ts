/**
 * @module bench/scale
 *
 * What more members cost: the time to open a channel and the manager's memory, with few and with many idle members
 * beside the pair that is measured.
 */

import { readFileSync } from "node:fs"
import { BenchHost } from "./host.ts"
import { figure, median, ratios, type Bench } from "./measure.ts"
import { openOnce, type Pair } from "./open.ts"

const FEW = 4
const MANY = 64
const OPENS_PER_ROUND = 30
const PAIR: Pair = ["m0", "m1"]

export const bench: Bench = async ({ rounds, note }) => {
  // Two managers at once, so that rounds with few and with many members can alternate.
  const few = await BenchHost.start()
  const many = await BenchHost.start()
  try {
    await populate(few, FEW)
    note(`scale: ${FEW} members are up`)
    const before = residentMb(many.servePid)
    await populate(many, 2)
    const warm = await warmUp(many)
    await populate(many, MANY, 2)
    note(`scale: ${MANY} members are up`)
    await warmUp(few)
    const rows = { few: [] as number[], many: [] as number[] }
    for (let round = 0; round < rounds; round += 1) {
      rows.few.push(await p50(few))
      rows.many.push(await p50(many))
    }
    const perMember = (residentMb(many.servePid) - warm) / (MANY - 2)
    return [
      figure("scale.open_4_p50_ms", "ms", rows.few),
      figure("scale.open_64_p50_ms", "ms", rows.many),
      figure("scale.open_64_vs_4", "", ratios(rows.many, rows.few), "at most 1.5"),
      figure("scale.mvm_mb_empty", "MB", [before]),
      figure("scale.mvm_mb_per_member", "MB", [Math.max(0, perMember)], "at most 1"),
    ]
  } finally {
    await Promise.all([few.stop(), many.stop()])
  }
}

async function populate(host: BenchHost, count: number, from = 0): Promise<void> {
  for (let index = from; index < count; index += 1) await host.addMember(`m${index}`)
}

async function p50(host: BenchHost): Promise<number> {
  const taken: number[] = []
  for (let count = 0; count < OPENS_PER_ROUND; count += 1) taken.push(await openOnce(host, PAIR))
  return median(taken)
}

/** Opens until code is compiled and buffers have their size. @returns the manager's resident memory then, MB */
async function warmUp(host: BenchHost): Promise<number> {
  for (let count = 0; count < 100; count += 1) await openOnce(host, PAIR)
  return residentMb(host.servePid)
}

function residentMb(pid: number): number {
  const match = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))
  return Number(match?.[1] ?? 0) / 1024
}
