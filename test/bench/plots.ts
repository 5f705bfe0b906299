/**
 * @module bench/plots
 *
 * `scripts/bench plots`: throughput over the size of records, and the cost of an open over the number of members,
 * as SVG files in dist/bench.
 */

import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { BenchHost } from "./host.ts"
import { linePlot } from "./line-plot.ts"
import { figure, median, type Bench, type Figure } from "./measure.ts"
import { openOnce } from "./open.ts"
import { openPair, pump } from "./ring-pair.ts"
import { sealOnly } from "./ring.ts"

const RECORD_SIZES = [10, 12, 14, 15, 16, 17, 18, 19].map((power) => 2 ** power)
const RING_BYTES = 4 * 2 ** 20
const ROUND_BYTES = 128 * 2 ** 20
const MEMBERS = [2, 4, 8, 16, 32, 64]
const OPENS = 20

const directory = join(import.meta.dir, "../../dist/bench")

export const bench: Bench = async ({ rounds, note }) => {
  mkdirSync(directory, { recursive: true })
  return [...(await throughput(rounds, note)), ...(await members(rounds, note))]
}

async function throughput(rounds: number, note: (line: string) => void): Promise<Figure[]> {
  const source = new Uint8Array(4 * 2 ** 20).fill(7)
  const rows = {
    arena: [] as [number, number][],
    dedicated: [] as [number, number][],
    cipher: [] as [number, number][],
  }
  for (const recordBytes of RECORD_SIZES) {
    const taken = { arena: [] as number[], dedicated: [] as number[], cipher: [] as number[] }
    using arena = openPair({ ringBytes: RING_BYTES, recordBytes, isolation: "arena", task: "drain" })
    using dedicated = openPair({ ringBytes: RING_BYTES, recordBytes, isolation: "dedicated", task: "drain" })
    const lengthBytes = Math.min(ROUND_BYTES, recordBytes * 16384)
    for (let round = 0; round < rounds; round += 1) {
      taken.arena.push(pump(arena, source, lengthBytes))
      taken.dedicated.push(pump(dedicated, source, lengthBytes))
      taken.cipher.push(sealOnly(recordBytes - 64, lengthBytes))
    }
    for (const name of ["arena", "dedicated", "cipher"] as const)
      rows[name].push([recordBytes, median(taken[name])])
    note(`plots: records of ${recordBytes} bytes`)
  }
  const svg = linePlot({
    title: "Sealed records through a ring between two processes",
    xLabel: "record, bytes",
    yLabel: "GB/s",
    tick: (x) => (x >= 1024 ? `${x / 1024}K` : String(x)),
    lines: [
      { label: "one thread, cipher only", points: rows.cipher },
      { label: "ring, dedicated", points: rows.dedicated },
      { label: "ring, arena", points: rows.arena },
    ],
  })
  await Bun.write(join(directory, "throughput.svg"), svg)
  return rows.arena.map(([recordBytes, value]) => figure(`plots.arena_${recordBytes}_gb_s`, "GB/s", [value]))
}

async function members(rounds: number, note: (line: string) => void): Promise<Figure[]> {
  const host = await BenchHost.start()
  const points: [number, number][] = []
  try {
    let count = 0
    for (const wanted of MEMBERS) {
      for (; count < wanted; count += 1) await host.addMember(`m${count}`)
      const taken: number[] = []
      for (let round = 0; round < rounds * OPENS; round += 1) taken.push(await openOnce(host, ["m0", "m1"]))
      points.push([wanted, median(taken)])
      note(`plots: ${wanted} members`)
    }
  } finally {
    await host.stop()
  }
  const svg = linePlot({
    title: "Opening a channel, both ends measured",
    xLabel: "members",
    yLabel: "ms, median",
    tick: String,
    lines: [{ label: "ALLOC to first byte", points }],
  })
  await Bun.write(join(directory, "members.svg"), svg)
  return points.map(([wanted, value]) => figure(`plots.open_${wanted}_ms`, "ms", [value]))
}
