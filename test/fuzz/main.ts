/**
 * @module test/fuzz/main
 *
 * Fuzzes the decoders, in worker processes that are watched. Findings are made small and become files in
 * test/corpus/crashes, which the tests replay for ever.
 */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { sha256 } from "../../src/lib/crypto.ts"
import { CORPUS } from "./target.ts"
import { ALL_TARGETS, TARGETS } from "./targets.ts"
import { watchWorker, type WatchedFinding } from "./watcher.ts"

const { values } = parseArgs({
  options: {
    /** For the tests of this program. */
    crashes: { type: "string", default: join(CORPUS, "crashes") },
    once: { type: "boolean", default: false },
    minutes: { type: "string" },
    inputs: { type: "string" },
    seed: { type: "string" },
    only: { type: "string", multiple: true },
    json: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
})

/** One process at a time keeps memory small enough to see growth; a restart costs a third of a second. */
const RESTARTS_MAX = 1000
const PROGRESS_MS = 5000

function count(text: string | undefined, what: string): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (!(value > 0)) throw new Error(`--${what} needs a number above 0`)
  return value
}

function chosen(): string[] {
  const wanted = values.only ?? []
  const names = TARGETS.map(({ name }) => name)
  const all = ALL_TARGETS.map(({ name }) => name)
  for (const name of wanted) {
    if (!all.some((known) => isUnder(known, name))) throw new Error(`no target ${name}; --list shows them`)
  }
  return wanted.length === 0 ? names : all.filter((known) => wanted.some((name) => isUnder(known, name)))
}

/** `link` names all of `link.HELLO`, `link.WELCOME`... */
function isUnder(known: string, name: string): boolean {
  return known === name || known.startsWith(`${name}.`)
}

/** Where a finding is kept; the same one found again is the same file. */
function keep({ target, input }: WatchedFinding): string {
  const folder = join(values.crashes, target)
  mkdirSync(folder, { recursive: true })
  const path = join(folder, `${sha256(input).toHex().slice(0, 16)}.bin`)
  writeFileSync(path, input)
  return path
}

async function fuzz(): Promise<number> {
  const targets = chosen()
  if (values.list) {
    process.stdout.write(`${targets.join("\n")}\n`)
    return 0
  }
  const inputs = count(values.inputs, "inputs")
  const minutes = count(values.minutes, "minutes") ?? (inputs === undefined ? 1 : undefined)
  const firstSeed = count(values.seed, "seed") ?? 1 + (Date.now() % 1_000_000)
  const startedMs = Date.now()
  const untilMs = minutes === undefined ? null : startedMs + minutes * 60_000
  const tried: Record<string, number> = Object.fromEntries(targets.map((name) => [name, 0]))
  const total = (): number => Object.values(tried).reduce((sum, one) => sum + one, 0)
  const perTarget = inputs === undefined ? null : Math.ceil(inputs / targets.length)
  const findings: (WatchedFinding & { path: string })[] = []
  let outcomes = 0
  const folder = mkdtempSync(join(tmpdir(), "mvm-fuzz-watch-"))
  const progress = setInterval(() => {
    if (process.stderr.isTTY) process.stderr.write(`\r${total()} inputs, ${findings.length} findings`)
  }, PROGRESS_MS)
  try {
    for (let round = 0; round < RESTARTS_MAX; round++) {
      const before = { ...tried }
      const left = targets.filter((name) => perTarget === null || before[name]! < perTarget)
      if (left.length === 0 || (untilMs !== null && Date.now() >= untilMs)) break
      const order = {
        targets: left,
        seed: firstSeed + round,
        perTarget: perTarget === null ? null : Math.max(...left.map((name) => perTarget - before[name]!)),
        untilMs,
        scratch: join(folder, "scratch"),
      }
      const isDone = await watchWorker(order, {
        onProgress: (now, seen) => {
          for (const [name, so] of Object.entries(now)) tried[name] = (before[name] ?? 0) + so
          outcomes = Math.max(outcomes, seen)
        },
        onFinding: (finding) => {
          const path = keep(finding)
          findings.push({ ...finding, path })
          process.stderr.write(`${finding.target}: ${finding.what}\n  ${path}\n  ${finding.stack}\n`)
        },
      })
      if ((isDone && perTarget !== null) || (values.once && findings.length > 0)) break
    }
  } finally {
    clearInterval(progress)
    rmSync(folder, { recursive: true, force: true })
  }
  const seconds = Math.round((Date.now() - startedMs) / 1000)
  const summary = {
    inputs: total(),
    targets: targets.length,
    outcomes,
    crashes: findings.length,
    seconds,
    seed: firstSeed,
  }
  if (values.json) {
    const kept = findings.map(({ target, what, path }) => ({ target, what, path }))
    process.stdout.write(`${JSON.stringify({ ...summary, tried, findings: kept })}\n`)
  } else {
    process.stdout.write(
      `seed ${firstSeed}: ${outcomes} outcomes told apart in ${seconds} s\n` +
        `${summary.inputs} inputs tried over ${targets.length} decoders, ${findings.length} crashes found\n`,
    )
  }
  return findings.length === 0 ? 0 : 1
}

try {
  process.exitCode = await fuzz()
} catch (error) {
  process.stderr.write(`fuzz: ${(error as Error).message}\n`)
  process.exitCode = 2
}
