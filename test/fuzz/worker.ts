/**
 * @module test/fuzz/worker
 *
 * The process that runs the decoders: started, watched and if need be killed by main. What it is at is always in a
 * shared file, so that a hang or a death names its input.
 *
 *   worker.ts '{"targets":[...],"seed":1,"perTarget":N|null,"untilMs":N|null,"scratch":PATH}'
 */

import { Fuzzer, type Finding } from "./fuzzer.ts"
import { Random } from "./random.ts"
import { Scratch } from "./scratch.ts"
import { ALL_TARGETS } from "./targets.ts"

export interface WorkerOrder {
  readonly targets: readonly string[]
  readonly seed: number
  /** Inputs for each target, or null: until the time is over. */
  readonly perTarget: number | null
  /** Milliseconds since 1970. */
  readonly untilMs: number | null
  readonly scratch: string
}

export type WorkerReport =
  | { readonly kind: "progress"; readonly tried: Readonly<Record<string, number>>; readonly outcomes: number }
  | {
      readonly kind: "finding"
      readonly target: string
      readonly what: string
      readonly stack: string
      readonly input: string
    }
  | { readonly kind: "done" }

/** Long enough that going from one to the next costs nothing, short enough that all get their turn early. */
const SLICE_MS = 60
const REPORT_MS = 500

function say(report: WorkerReport): void {
  process.stdout.write(`${JSON.stringify(report)}\n`)
}

function tell({ target, what, stack, input }: Finding): void {
  say({ kind: "finding", target, what, stack, input: input.toHex() })
}

async function main(order: WorkerOrder): Promise<void> {
  // Making a trace costs more than most decoders; findings are few and say what and where by their words.
  Error.stackTraceLimit = 6
  const scratch = Scratch.open(order.scratch)
  const chosen = ALL_TARGETS.filter(({ name }) => order.targets.includes(name))
  const fuzzers = chosen.map((target, index) => new Fuzzer(target, new Random(order.seed * 1000 + index)))
  const isDue = (fuzzer: Fuzzer): boolean => order.perTarget === null || fuzzer.tried < order.perTarget
  let reportedMs = 0
  const report = (): void => {
    reportedMs = performance.now()
    const tried = Object.fromEntries(fuzzers.map((fuzzer) => [fuzzer.target.name, fuzzer.tried]))
    say({ kind: "progress", tried, outcomes: fuzzers.reduce((sum, { outcomes }) => sum + outcomes, 0) })
  }
  const isOver = (): boolean => order.untilMs !== null && Date.now() >= order.untilMs
  for (let left = fuzzers; left.length > 0 && !isOver(); left = left.filter(isDue)) {
    for (const fuzzer of left) {
      const begins = scratch.writerOf(ALL_TARGETS.indexOf(fuzzer.target))
      const until = performance.now() + SLICE_MS
      while (isDue(fuzzer) && performance.now() < until) {
        const finding = await fuzzer.step(begins)
        if (finding) tell(finding)
      }
      scratch.idle()
      if (performance.now() - reportedMs > REPORT_MS) report()
      if (isOver()) break
    }
  }
  report()
  say({ kind: "done" })
}

await main(JSON.parse(process.argv[2] ?? "") as WorkerOrder)
