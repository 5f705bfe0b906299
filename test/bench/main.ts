/**
 * @module bench/main
 *
 * `scripts/bench [NAME...] [--json] [--rounds N]`: runs the named benchmarks, or all, and prints a table for each or,
 * with --json, one object for each on a line of its own.
 */

import { parseArgs } from "node:util"
import { machine, spread, type Bench, type Figure } from "./measure.ts"

/** A benchmark's module is loaded only when it is asked for. */
const BENCHES: Record<string, () => Promise<{ bench: Bench }>> = {
  ring: () => import("./ring.ts"),
  latency: () => import("./latency.ts"),
  attest: () => import("./attest.ts"),
  pipe: () => import("./pipe.ts"),
  forward: () => import("./forward.ts"),
  open: () => import("./open.ts"),
  scale: () => import("./scale.ts"),
  vm: () => import("./vm.ts"),
  plots: () => import("./plots.ts"),
}

const { values, positionals } = parseArgs({
  args: Bun.argv.slice(2),
  allowPositionals: true,
  options: { json: { type: "boolean" }, rounds: { type: "string", default: "7" } },
})
const rounds = Number(values.rounds)
const names = positionals.length === 0 ? Object.keys(BENCHES) : positionals
const unknown = names.filter((name) => !Object.hasOwn(BENCHES, name))
if (unknown.length > 0 || !Number.isSafeInteger(rounds) || rounds < 1) {
  console.error(`usage: scripts/bench [${Object.keys(BENCHES).join("|")}] [--json] [--rounds N]`)
  process.exitCode = 2
} else {
  for (const name of names) await run(name)
}

async function run(name: string): Promise<void> {
  const { bench } = await BENCHES[name]!()
  const figures = await bench({ rounds, note: (line) => process.stderr.isTTY && console.error(line) })
  if (values.json) {
    const metrics = Object.fromEntries(figures.map(({ key, median }) => [key, round(median)]))
    console.log(JSON.stringify({ bench: name, metrics, rounds, machine: machine() }))
  } else {
    console.log(`${name} (${rounds} rounds, ${machine()})`)
    table(figures)
  }
}

function table(figures: readonly Figure[]): void {
  const rows = figures.map((figure) => [
    figure.key,
    String(round(figure.median)),
    figure.unit,
    `${round(spread(figure).low)} - ${round(spread(figure).high)}`,
    figure.target ?? "",
  ])
  const all = [["figure", "median", "", "spread", "target"], ...rows]
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)))
  for (const row of all)
    console.log(
      "  " +
        row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join("  ")
          .trimEnd(),
    )
}

function round(value: number): number {
  return Number(value.toPrecision(4))
}
