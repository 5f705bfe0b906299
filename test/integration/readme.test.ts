/**
 * @module test/integration/readme
 *
 * What README.md says is so: its first session runs, and what it lists is there.
 */

import { describe, expect, test } from "bun:test"
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { COMMANDS } from "../../src/cli/commands.ts"
import { verbOf } from "../../src/cli/help.ts"
import { STATUS } from "../../src/lib/errors.ts"
import { DEMANDS, rule } from "../../src/mvm/policy/policy-schema.ts"

const ROOT = join(import.meta.dir, "../..")
const README = readFileSync(join(ROOT, "README.md"), "utf8")

function section(title: string): string {
  const found = README.split(/^## /m).find((part) => part.startsWith(title))
  if (found === undefined) throw new Error(`README.md has no section ${title}`)
  return found
}

test("the first session on the host works as it is written", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mvr-"))
  try {
    mkdirSync(join(folder, "dist"))
    mkdirSync(join(folder, "tmp"))
    copyFileSync(join(ROOT, "dist/mvm"), join(folder, "dist/mvm"))
    chmodSync(join(folder, "dist/mvm"), 0o755)
    copyFileSync(join(ROOT, "README.md"), join(folder, "README.md"))
    const session = /```sh local-session\n([^]*?)```/.exec(README)?.[1] ?? "exit 99"
    const { MVM_STATE: _state, MVM_AGENT: _agent, ...env } = process.env
    const child = Bun.spawn(["bash", "-euo", "pipefail", "-c", session], {
      cwd: folder,
      env: { ...env, TMPDIR: join(folder, "tmp") },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    })
    const [stdout, stderr] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ])
    expect([await child.exited, stderr]).toEqual([0, expect.stringContaining("digests agree")])
    expect(stdout).toContain("\nallow: policy.toml:1 allows service default from a to b\n")
    expect(stdout).toContain("\nsame\n")
    expect(stdout).toContain("  receipt  ")
    expect(stdout).toContain("\nstatus 6\n")
    expect(readdirSync(join(folder, "tmp"))).toEqual([])
    expect(processesOf(folder)).toEqual([])
  } finally {
    for (const { pid } of processesOf(folder)) process.kill(pid, "SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
}, 60_000)

describe("the README names", () => {
  test("every command", () => {
    const words = section("Commands")
    const missing = COMMANDS.map(verbOf).filter((verb) => {
      const [first = "", second = ""] = verb.split(" ")
      return !new RegExp(`^mvm ${first} ${second === "" ? "" : `(\\S+\\|)*${second}\\b`}`, "m").test(words)
    })
    expect(missing).toEqual([])
  })

  test("every exit status", () => {
    for (const status of Object.values(STATUS)) {
      expect(section("Exit statuses")).toMatch(new RegExp(`^\\| ${status} \\|`, "m"))
    }
  })

  test("every key of a policy", () => {
    for (const key of [...Object.keys(rule.entries), ...DEMANDS]) {
      expect(section("Policy file")).toMatch(new RegExp(`^\\|.*\`${key}\`.* \\|`, "m"))
    }
  })

  test("every fact of send and recv --json", () => {
    const source = readFileSync(join(ROOT, "src/cli/guest/transfer.ts"), "utf8")
    const facts = /const facts = \{([^]*?)\n {4}\}/.exec(source)?.[1] ?? ""
    const names = [...facts.matchAll(/^ {6}(\w+)[:,]/gm)].map((match) => match[1])
    expect(names.length).toBeGreaterThan(10)
    for (const name of names) expect(section("Commands")).toContain(`\`${name}\``)
  })

  test("every package, and no other", () => {
    const { dependencies, devDependencies } = JSON.parse(
      readFileSync(join(ROOT, "package.json"), "utf8"),
    ) as Record<string, Record<string, string>>
    const rows = section("Dependencies").match(/^\| `.*?\|/gm) ?? []
    const named = rows.flatMap((row) => [...row.matchAll(/`([^`]+)`/g)].map((match) => match[1]))
    expect(named.toSorted()).toEqual(Object.keys({ ...dependencies, ...devDependencies }).toSorted())
  })

  test("tests that there are, for each promise", () => {
    const sources = readdirSync(join(ROOT, "test"), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".test.ts"))
      .map((path) => readFileSync(join(ROOT, "test", path), "utf8"))
    const rows = section("Security model").match(/^\|.*\|$/gm) ?? []
    const titles = rows.flatMap((row) => [...row.matchAll(/"([^"]+)"/g)].map((match) => match[1] ?? ""))
    expect(titles.length).toBeGreaterThan(20)
    for (const title of titles) {
      const isThere = sources.some((source) => source.includes(title))
      expect(`${title}: ${isThere ? "is there" : "no test has this title"}`).toBe(`${title}: is there`)
    }
  })

  test("files and functions that there are, for each step of the method", () => {
    const rows = section("The method").match(/^\| \d.*\|$/gm) ?? []
    expect(rows.length).toBe(9)
    const sources = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
    const text = sources
      .filter((path) => path.endsWith(".ts"))
      .map((path) => readFileSync(join(ROOT, "src", path), "utf8"))
      .join("\n")
    for (const [, named = ""] of rows.join("\n").matchAll(/`([^`]+)`/g)) {
      if (named.startsWith("src/")) {
        const path = named.slice("src/".length).replace(/\/$/, "")
        expect(sources).toContain(path)
      } else if (/^[A-Za-z.]+$/.test(named)) {
        for (const part of named.split(".")) expect(text).toMatch(new RegExp(`\\b${part}\\b`))
      }
    }
  })
})

function processesOf(folder: string): { pid: number; line: string }[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
        return line.includes(folder) ? [{ pid, line }] : []
      } catch {
        return []
      }
    })
}
