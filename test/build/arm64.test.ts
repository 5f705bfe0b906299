/**
 * @module test/build/arm64
 *
 * The executable and packages for the other machine, built on this one. What only that machine could run is not run.
 */

import { afterAll, describe, expect, test } from "bun:test"
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dir, "../..")
const folder = mkdtempSync(join(tmpdir(), "mvm-arm64-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const other = process.arch === "arm64" ? "linux-x64" : "linux-arm64"
/** @spec ELF, e_machine */
const MACHINES = { "linux-x64": 62, "linux-arm64": 183 }
const DEBIAN = { "linux-x64": "amd64", "linux-arm64": "arm64" }
/** Of the runtime's environment, what runs other code. */
const DOORS = ["BUN_OPTIONS", "BUN_BE_BUN", "BUN_INSPECT"]

function machineOf(path: string): number {
  const header = Buffer.alloc(20)
  const fd = openSync(path, "r")
  readSync(fd, header, 0, header.length, 0)
  closeSync(fd)
  return header.readUInt16LE(18)
}

function run(script: string, ...words: string[]): string {
  const child = Bun.spawnSync([join(root, "scripts", script), "--quiet", ...words])
  if (child.exitCode !== 0) throw new Error(child.stderr.toString())
  return child.stdout.toString()
}

describe("for the other machine", () => {
  test("the executable is built, with the runtime's doors shut", () => {
    run("build", "--target", other)
    const built = join(root, `dist/mvm-${other}`)
    expect(machineOf(built)).toBe(MACHINES[other])
    // A name that a program could ask for stands between zeros; in scripts of the runtime it may stay as text.
    const bytes = readFileSync(built)
    for (const name of DOORS) expect([name, bytes.indexOf(`\0${name}\0`)]).toEqual([name, -1])
  }, 300_000)

  test("packages are made that say which machine they are for", () => {
    const made = run("package", "--target", other, "--output", folder).trim().split("\n")
    const fields = made.map((file) => {
      return Bun.spawnSync(["dpkg-deb", "-f", file, "Package", "Architecture"]).stdout.toString()
    })
    const architecture = DEBIAN[other]
    expect(fields).toEqual([
      "Package: mvm-guest\nArchitecture: all\n",
      `Package: mvm-host\nArchitecture: ${architecture}\n`,
      `Package: mvm\nArchitecture: ${architecture}\n`,
    ])
    const unpacked = join(folder, "unpacked")
    expect(Bun.spawnSync(["dpkg-deb", "-x", made[2]!, unpacked]).exitCode).toBe(0)
    expect(machineOf(join(unpacked, "usr/bin/mvm"))).toBe(MACHINES[other])
  }, 300_000)
})
