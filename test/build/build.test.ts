/**
 * @module test/build/build
 *
 * `scripts/build` in a tree of its own: what it makes, and when it makes that anew.
 */

import { afterAll, expect, test } from "bun:test"
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const ROOT = join(import.meta.dir, "../..")
const folder = mkdtempSync(join(tmpdir(), "mvm-build-"))
afterAll(() => rmSync(folder, { recursive: true }))

function build(): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["scripts/build"], { cwd: folder })
  if (exitCode !== 0) throw new Error(stderr.toString())
  return stdout.toString() + stderr.toString()
}

test("makes the program and its pages, and again when either is missing", () => {
  for (const name of ["src", "scripts", "package.json", "package-lock.json", "tsconfig.json"]) {
    cpSync(join(ROOT, name), join(folder, name), { recursive: true, preserveTimestamps: true })
  }
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"))
  expect(build()).toContain("build: dist/mvm in ")
  expect(build()).toContain("up to date")
  for (const made of ["dist/man", "dist/mvm"]) {
    rmSync(join(folder, made), { recursive: true })
    expect(build()).toContain("build: dist/mvm in ")
    expect(existsSync(join(folder, made))).toBe(true)
  }
}, 60_000)
