/**
 * @module test/build/doors
 *
 * The built executable is what VMs measure, so its environment and working directory must not be able to run
 * other code under its digest. Each way is first shown to work on a build without treatment.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dir, "../..")
const built = join(root, "dist/mvm")
const folder = mkdtempSync(join(tmpdir(), "mvm-doors-"))
const untreated = join(folder, "untreated")
const preload = join(folder, "foreign.js")
const marker = join(folder, "foreign-ran")
const version = `mvm ${(await Bun.file(join(root, "package.json")).json()).version}\n`

interface Run {
  status: number
  stdout: string
  stderr: string
  foreign: boolean
}

function run(file: string, env: Record<string, string>, args: string[] = ["--version"], argv0 = "mvm"): Run {
  rmSync(marker, { force: true })
  const child = Bun.spawnSync([file, ...args], { cwd: folder, env: { ...env, HOME: folder }, argv0 })
  return {
    status: child.exitCode,
    stdout: child.stdout.toString(),
    stderr: child.stderr.toString(),
    foreign: existsSync(marker),
  }
}

function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  const port = server.port
  server.stop(true)
  return port
}

async function listens(port: number): Promise<boolean> {
  try {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } })
    socket.end()
    return true
  } catch {
    await Bun.sleep(10)
    return false
  }
}

beforeAll(async () => {
  const foreign = `require("node:fs").writeFileSync(${JSON.stringify(marker)}, "")`
  writeFileSync(preload, foreign)
  const build = Bun.spawnSync([join(root, "scripts/build"), "--quiet"])
  expect(build.stderr.toString()).toBe("")
  const plain = [process.execPath, "build", "--compile", join(root, "src/main.ts"), "--outfile", untreated]
  expect(Bun.spawnSync(plain, { cwd: root }).exitCode).toBe(0)

  for (const place of [folder, join(folder, ".config")]) {
    mkdirSync(place, { recursive: true })
    writeFileSync(join(place, ".bunfig.toml"), `preload = [${JSON.stringify(preload)}]\n`)
    writeFileSync(join(place, "bunfig.toml"), `preload = [${JSON.stringify(preload)}]\n`)
  }
  writeFileSync(join(folder, ".env"), `BUN_OPTIONS=--preload ${preload}\nNODE_OPTIONS=--require ${preload}\n`)
  writeFileSync(
    join(folder, "package.json"),
    `{"name":"x","imports":{"#*":"./foreign.js"},"main":"foreign.js"}`,
  )
  writeFileSync(join(folder, "tsconfig.json"), `{"compilerOptions":{"paths":{"*":["./foreign.js"]}}}`)
  for (const name of ["msgpackr-extract", "msgpackr", "cac", "valibot", "node-gyp-build-optional-packages"]) {
    const place = join(folder, "node_modules", name)
    mkdirSync(place, { recursive: true })
    writeFileSync(join(place, "index.js"), foreign)
  }
}, 120_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Environments that run the preload file in an untreated build. */
const preloads = { BUN_OPTIONS: `--preload ${preload}` }

describe("an untreated build", () => {
  test("runs foreign code named by BUN_OPTIONS", () => {
    expect(run(untreated, preloads).foreign).toBe(true)
  })

  test("runs foreign code from a bunfig.toml in the working directory", () => {
    expect(run(untreated, {}).foreign).toBe(true)
  })

  test("becomes the runtime itself under BUN_BE_BUN", () => {
    expect(run(untreated, { BUN_BE_BUN: "1" }, ["-e", "console.log(6 * 7)"]).stdout).toBe("42\n")
  })

  test("opens the override file of BUN_JSC_functionOverrides", () => {
    expect(run(untreated, { BUN_JSC_functionOverrides: "/nonexistent" }).stderr).toContain(
      "functionOverrides",
    )
  })

  test("listens for a debugger under BUN_INSPECT", async () => {
    const port = freePort()
    const env = { BUN_INSPECT: `127.0.0.1:${port}/x?wait=1` }
    const child = Bun.spawn([untreated, "--version"], { env, stdout: "ignore", stderr: "ignore" })
    let answered = false
    while (!answered && child.exitCode === null) answered = await listens(port)
    child.kill(9)
    await child.exited
    expect(answered).toBe(true)
  })
})

describe("the built executable", () => {
  const harmless: [string, Record<string, string>][] = [
    ["the files of the working directory", {}],
    ["BUN_OPTIONS", preloads],
    ["BUN_INSPECT_PRELOAD", { BUN_INSPECT: "1", BUN_INSPECT_PRELOAD: preload }],
    ["BUN_CONFIG_PRELOAD", { BUN_CONFIG_PRELOAD: preload }],
    ["NODE_OPTIONS", { NODE_OPTIONS: `--require ${preload} --import ${preload}` }],
    ["NODE_PATH", { NODE_PATH: join(folder, "node_modules") }],
    ["NODE_REPL_EXTERNAL_MODULE", { NODE_REPL_EXTERNAL_MODULE: preload }],
    ["XDG_CONFIG_HOME", { XDG_CONFIG_HOME: join(folder, ".config") }],
    ["a name that begins with an equals sign", { "=UN_OPTIONS": `--preload ${preload}` }],
    ["BUN_JSC_functionOverrides", { BUN_JSC_functionOverrides: "/nonexistent" }],
    ["JSC_functionOverrides", { JSC_functionOverrides: "/nonexistent" }],
    ["BUN_JSC_dumpOptions", { BUN_JSC_dumpOptions: "3" }],
    ["BUN_JSC_configFile", { BUN_JSC_configFile: preload }],
  ]
  test.each(harmless)("runs only itself with %s", (_, env) => {
    expect(run(built, env)).toEqual({ status: 0, stdout: version, stderr: "", foreign: false })
  })

  test("does not wait for a debugger under BUN_INSPECT", () => {
    const seen = run(built, { BUN_INSPECT: `127.0.0.1:${freePort()}/x?wait=1` })
    expect(seen).toEqual({ status: 0, stdout: version, stderr: "", foreign: false })
  })

  test.each(["mvm", "bun", "bunx", "node"])("does not become the runtime under BUN_BE_BUN as %s", (argv0) => {
    const seen = run(built, { BUN_BE_BUN: "1" }, ["-e", "console.log(6 * 7)"], argv0)
    expect(seen.stdout).not.toContain("42")
    expect(seen.status).not.toBe(0)
  })

  test.each(["mvm", "bun", "bunx", "node"])("takes no runtime flags from its arguments as %s", (argv0) => {
    expect(run(built, {}, ["--preload", preload, "--version"], argv0).foreign).toBe(false)
  })

  test("carries the version of package.json", () => {
    expect(run(built, {}).stdout).toBe(version)
  })
})
