/**
 * @module test/build/man
 *
 * The manual pages as man(1) and groff take them.
 */

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { COMMANDS } from "../../src/cli/commands.ts"
import { optionName } from "../../src/cli/command.ts"
import { STATUS } from "../../src/lib/errors.ts"
import { DEMAND_KEYS, RULE_KEYS } from "../../src/mvm/policy/policy-keys.ts"
import { parsePolicy } from "../../src/mvm/policy/parse.ts"
import { DEMANDS, rule } from "../../src/mvm/policy/policy-schema.ts"
import { POLICY_EXAMPLE } from "../../scripts/man/policy.ts"
import { escape, line, macro } from "../../scripts/man/roff.ts"

const ROOT = join(import.meta.dir, "../..")
const folder = mkdtempSync(join(tmpdir(), "mvm-man-"))
const made = Bun.spawnSync([process.execPath, "scripts/man/main.ts", folder, "0.0.0"], { cwd: ROOT })
const PAGES = { "mvm(1)": join(folder, "man1/mvm.1"), "mvm-policy(5)": join(folder, "man5/mvm-policy.5") }

afterAll(() => rmSync(folder, { recursive: true }))

function said(...words: string[]): { status: number; stdout: string; stderr: string } {
  const env = { ...process.env, MANWIDTH: "78", LC_ALL: "C.UTF-8", MAN_KEEP_FORMATTING: "" }
  const { exitCode, stdout, stderr } = Bun.spawnSync(words, { env })
  return { status: exitCode, stdout: stdout.toString(), stderr: stderr.toString() }
}

/** As it is read, on one line. */
function rendered(path: string): string {
  return said("man", "-E", "UTF-8", "--no-hyphenation", "--no-justification", "-l", path).stdout.replace(
    /\s+/g,
    " ",
  )
}

describe.each(Object.entries(PAGES))("%s", (name, path) => {
  test("is made without a complaint, of the program or of groff", () => {
    expect([made.exitCode, made.stderr.toString()]).toEqual([0, ""])
    expect(said("man", "--warnings=w", "-E", "UTF-8", "-l", path)).toMatchObject({ status: 0, stderr: "" })
    expect(said("groff", "-ww", "-man", "-Tutf8", path)).toMatchObject({ status: 0, stderr: "" })
  })

  test("has the sections that man(7) asks for, and a name that whatis finds", () => {
    const text = said("man", "-E", "UTF-8", "-l", path).stdout
    for (const heading of ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"]) {
      expect(text).toMatch(new RegExp(`^${heading}$`, "m"))
    }
    expect(said("lexgrog", path)).toMatchObject({
      status: 0,
      stdout: expect.stringContaining(name.split("(")[0]!),
    })
  })
})

test("mvm(1) names every command with its summary, options and examples, and every status", () => {
  const text = rendered(PAGES["mvm(1)"])
  for (const { usage, summary, options, examples } of COMMANDS) {
    expect(text).toContain(
      `mvm ${usage} ${summary[0]!.toUpperCase()}${summary.slice(1)}.`.replace(/\s+/g, " "),
    )
    for (const option of options ?? []) expect(text).toContain(`${optionName(option)} `)
    for (const words of examples) expect(text).toContain(`mvm ${words}`.replace(/\s+/g, " "))
  }
  for (const status of Object.values(STATUS)) expect(text).toMatch(new RegExp(` ${status} [A-Za-z]`))
})

test("mvm-policy(5) names every key of a policy, and its example is one", () => {
  const text = rendered(PAGES["mvm-policy(5)"])
  expect(Object.keys({ ...RULE_KEYS, ...DEMAND_KEYS }).toSorted()).toEqual(
    Object.keys(rule.entries).toSorted(),
  )
  expect(Object.keys(DEMAND_KEYS).toSorted()).toEqual(DEMANDS.toSorted())
  for (const key of Object.keys(rule.entries)) expect(text).toContain(`${key} = ...`)
  expect(parsePolicy(POLICY_EXAMPLE, "policy.toml").rules.length).toBe(1)
})

test("text is text, whatever it begins with and whatever is in it", () => {
  expect(line(".hidden")).toBe("\\&.hidden")
  expect(line("'quoted' a-b `c` \\n")).toBe("\\(aqquoted\\(aq a\\-b \\(gac\\(ga \\en")
  expect(macro("B", 'say "x"')).toBe('.B "say \\(dqx\\(dq"')
  expect(escape("plain")).toBe("plain")
})

test("the build puts both into dist/man", () => {
  for (const path of ["dist/man/man1/mvm.1", "dist/man/man5/mvm-policy.5"]) {
    expect(readFileSync(join(ROOT, path), "utf8")).toStartWith(".TH ")
  }
})
