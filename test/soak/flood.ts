/**
 * @module test/soak/flood
 *
 * What a flooding member costs another: the time to open a channel between two, and the MVM's memory, with a third
 * whose link is filled as fast as the MVM reads it, and without. Rounds with and without alternate, so that what else
 * the machine does falls on both.
 */

import { join } from "node:path"
import { BenchHost } from "../bench/host.ts"
import { openOnce } from "../bench/open.ts"
import { anonymousBytes } from "./memory.ts"

export const FLOODS = ["garbage", "hello", "requests", "log", "crafted"] as const
export type Flood = (typeof FLOODS)[number]

export interface FloodResult {
  readonly flood: Flood
  readonly quietP50Ms: number
  readonly floodedP50Ms: number
  /** The second to the first. */
  readonly ratio: number
  readonly grownMb: number
}

const OPENS = 25
const SETTLE_MS = 3000

/** @param opens in each half of each round */
export async function measureFlood(flood: Flood, rounds: number, opens = OPENS): Promise<FloodResult> {
  const host = await BenchHost.start()
  let flooder: Bun.Subprocess | undefined
  try {
    for (const name of ["m0", "m1", "evil"]) await host.addMember(name)
    const pair = ["m0", "m1"] as const
    for (let warm = 0; warm < 3 * opens; warm++) await openOnce(host, pair)
    await host.must("vm", "set", "evil", "--remeasure", "1s")
    process.kill(host.agentPid("evil"), "SIGKILL")
    const before = anonymousBytes(host.servePid)
    const program = join(import.meta.dir, "flooder.ts")
    flooder = Bun.spawn([process.execPath, program, host.state, "evil", flood, "m1"], {
      stdio: ["ignore", "ignore", "inherit"],
    })
    await Bun.sleep(SETTLE_MS)
    let grown = 0
    const times = { quiet: [] as number[], flooded: [] as number[] }
    for (let round = 0; round < rounds; round++) {
      flooder.kill("SIGSTOP")
      await Bun.sleep(200)
      for (let count = 0; count < opens; count++) times.quiet.push(await openOnce(host, pair))
      flooder.kill("SIGCONT")
      await Bun.sleep(200)
      for (let count = 0; count < opens; count++) times.flooded.push(await openOnce(host, pair))
      grown = Math.max(grown, anonymousBytes(host.servePid) - before)
    }
    const quietP50Ms = median(times.quiet)
    const floodedP50Ms = median(times.flooded)
    return { flood, quietP50Ms, floodedP50Ms, ratio: floodedP50Ms / quietP50Ms, grownMb: grown / 2 ** 20 }
  } finally {
    flooder?.kill("SIGKILL")
    await flooder?.exited
    await host.stop()
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0
}
