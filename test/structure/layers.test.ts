/**
 * @module test/structure/layers
 *
 * The shape of the source: imports go down the list of layers, nothing imports in a circle, files stay small, and
 * the tree is formatted and type-checked.
 */

import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"

const root = join(import.meta.dir, "../..")
const source = join(root, "src")

/** Top first. Folders of one row never import each other. */
const LAYERS = [
  ["main.ts"],
  ["cli"],
  ["mvm", "guest"],
  ["tcb"],
  ["channel"],
  ["ring"],
  ["tpm"],
  ["wire"],
  ["platform"],
  ["lib"],
]
const MAX_LINES = 400
const SOURCES = ["src", "test", "scripts"]

const files = [...new Bun.Glob("**/*.ts").scanSync(source)].sort()
const everything = SOURCES.flatMap((folder) =>
  [...new Bun.Glob("**/*.ts").scanSync(join(root, folder))].map((file) => `${folder}/${file}`),
).sort()

function text(path: string): string {
  return readFileSync(path, "utf8")
}

/** Files a source file names in imports and worker URLs, relative to src. */
function imports(file: string): string[] {
  const found = text(join(source, file)).matchAll(
    /(?:\bfrom\s+|\bimport\s+|\b(?:import|URL|Worker)\(\s*)["'](\.{1,2}\/[^"']+)["']/g,
  )
  const here = dirname(join(source, file))
  return [...found].map((match) => relative(source, resolve(here, match[1]!)))
}

const graph = new Map(files.map((file) => [file, imports(file)]))

function layer(file: string): number {
  return LAYERS.findIndex((names) => names.includes(file.split("/")[0]!))
}

describe("source", () => {
  test("lies in the known layers", () => {
    expect(files.filter((file) => layer(file) < 0)).toEqual([])
    expect(files.length).toBeGreaterThan(0)
  })

  test("imports only files that exist, with their suffix", () => {
    const known = new Set(files)
    const missing = [...graph].flatMap(([file, to]) =>
      to.filter((other) => !known.has(other)).map((other) => `${file} -> ${other}`),
    )
    expect(missing).toEqual([])
  })

  test("imports downward only, and mvm and guest never import each other", () => {
    const upward = [...graph].flatMap(([file, to]) =>
      to
        .filter((other) => file.split("/")[0] !== other.split("/")[0] && layer(other) <= layer(file))
        .map((other) => `${file} -> ${other}`),
    )
    expect(upward).toEqual([])
  })

  test("has no import cycles", () => {
    const done = new Set<string>()
    const cycles: string[] = []
    const visit = (file: string, path: string[]): void => {
      if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(" -> "))
      if (path.includes(file) || done.has(file)) return
      for (const other of graph.get(file) ?? []) visit(other, [...path, file])
      done.add(file)
    }
    for (const file of files) visit(file, [])
    expect(cycles).toEqual([])
  })

  test("has no barrel, utils or types files", () => {
    const names = files.filter((file) => /(^|\/)(index|utils?|types|helpers|common)\.ts$/.test(file))
    const barrels = files.filter((file) =>
      /^export\s+(\*|(type\s+)?\{[^}]*\})\s*from\b/m.test(text(join(source, file))),
    )
    expect([...names, ...barrels]).toEqual([])
  })

  test("ends the process in main.ts alone", () => {
    const ending = files.filter(
      (file) => file !== "main.ts" && /\bprocess\.exit\(/.test(text(join(source, file))),
    )
    expect(ending).toEqual([])
  })

  test(`has no file over ${MAX_LINES} lines`, () => {
    const long = everything.filter((file) => text(join(root, file)).split("\n").length - 1 > MAX_LINES)
    expect(long).toEqual([])
  })

  test("says in each header which module it is", () => {
    const wrong = files.filter(
      (file) => text(join(source, file)).match(/@module (\S+)(?: \*\/)?\n/)?.[1] !== file.slice(0, -3),
    )
    expect(wrong).toEqual([])
  })

  test("names msgpackr only by the entry points that load no native code", () => {
    const loose = files.filter((file) => /from "msgpackr"/.test(text(join(source, file))))
    expect(loose).toEqual([])
  })
})

describe("the tree", () => {
  const bun = (args: string[]) => {
    const child = Bun.spawnSync([process.execPath, ...args], {
      cwd: root,
      env: { ...process.env, NO_COLOR: "1" },
    })
    return { status: child.exitCode, said: child.stdout.toString() + child.stderr.toString() }
  }

  test("is formatted", () => {
    const { status, said } = bun(["fmt", "--check", ...SOURCES.map((folder) => `${folder}/**/*.ts`)])
    expect(status === 0 ? "" : said).toBe("")
  })

  test("type-checks", () => {
    const { status, said } = bun(["check"])
    expect(status === 0 ? "" : said).toBe("")
  }, 60_000)

  test("has no focused or skipped tests", () => {
    const found = everything.filter((file) =>
      /\b(test|it|describe)\.(only|skip|todo)(If)?\(/.test(text(join(root, file))),
    )
    expect(found).toEqual([])
  })
})
