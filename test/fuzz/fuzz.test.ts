/**
 * @module test/fuzz/fuzz.test
 *
 * The bounded form of scripts/fuzz, with one seed, so that it says the same each time; the long form takes new ones.
 * And that the search would find something: faults planted on purpose are found, made small and kept.
 */

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { CORPUS, corpusFiles, outcomeOf } from "./target.ts"
import { TARGETS } from "./targets.ts"

const INPUTS = 1_000_000
const folder = mkdtempSync(join(tmpdir(), "mvm-fuzz-test-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Summary {
  inputs: number
  targets: number
  crashes: number
  findings: { target: string; what: string; path: string }[]
}

/** scripts/fuzz, its crashes kept apart. */
async function fuzz(...words: string[]): Promise<{ status: number; summary: Summary }> {
  const program = join(import.meta.dir, "main.ts")
  const child = Bun.spawn([process.execPath, program, "--json", "--crashes", folder, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  const [output, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  const status = await child.exited
  if (status > 1) throw new Error(errors)
  return { status, summary: JSON.parse(output) as Summary }
}

test(`${INPUTS} inputs over every decoder end in nothing but a result or an error of ours`, async () => {
  const { status, summary } = await fuzz("--inputs", String(INPUTS), "--seed", "1")
  expect(summary.findings).toEqual([])
  expect(summary.targets).toBe(TARGETS.length)
  expect(summary.inputs).toBeGreaterThanOrEqual(INPUTS)
  expect(status).toBe(0)
}, 300_000)

describe("the search finds", () => {
  test("a crash, makes its input small and exits 1", async () => {
    const { status, summary } = await fuzz(
      "--only",
      "planted.crash",
      "--inputs",
      "3000",
      "--seed",
      "3",
      "--once",
    )
    expect(status).toBe(1)
    expect(summary.findings[0]?.what).toBe("TypeError undefined is not an object")
    expect([...readFileSync(summary.findings[0]!.path)]).toEqual([0x2a])
  }, 90_000)

  for (const [what, said] of [
    ["hang", "more than a second of CPU"],
    ["memory", "more than 1 GiB of memory"],
    ["death", "the process died (SIGKILL)"],
  ] as const) {
    test(`a ${what}, ends what does not end by itself, and keeps the input`, async () => {
      const { summary } = await fuzz("--only", `planted.${what}`, "--minutes", "1", "--seed", "3", "--once")
      expect(summary.findings[0]).toMatchObject({ target: `planted.${what}`, what: said })
      expect(new Uint8Array(readFileSync(summary.findings[0]!.path))).toContain(0x2a)
    }, 90_000)
  }
})

test("every input that ever crashed a decoder, and every captured one, ends in a result or an error of ours", async () => {
  let replayed = 0
  for (const target of TARGETS) {
    for (const folderName of ["crashes", "seeds"] as const) {
      for (const { path, bytes } of corpusFiles(folderName, target.name)) {
        const { error } = await outcomeOf(target, bytes)
        expect({ path, error }).toEqual({ path, error: undefined })
        replayed += 1
      }
    }
  }
  const files = [...new Bun.Glob("{seeds,crashes}/*/*.bin").scanSync(CORPUS)]
  expect(replayed).toBe(files.length)
  expect(replayed).toBeGreaterThan(0)
})
