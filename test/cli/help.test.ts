/** @module test/cli/help */

import { describe, expect, test } from "bun:test"
import { COMMANDS } from "../../src/cli/commands.ts"
import { helpOf, overview, verbOf } from "../../src/cli/help.ts"

describe("the overview", () => {
  const text = overview(COMMANDS, 80)

  test("names every command and every exit status", () => {
    for (const command of COMMANDS) expect(text).toContain(`mvm ${command.usage}`)
    for (let status = 0; status <= 7; status += 1) expect(text).toMatch(new RegExp(`\\b${status} [a-z]`))
  })

  test("of one group names that group's commands alone", () => {
    const lines = overview(COMMANDS, 80, "audit").split("\n")
    expect(lines.filter((line) => line.startsWith("  mvm ")).length).toBe(3)
    expect(lines.every((line) => !line.includes("mvm vm "))).toBe(true)
  })
})

test.each([40, 60, 80, 120])("help fits into %d columns wherever words allow", (columns) => {
  const usages = new Set(
    COMMANDS.flatMap(({ usage, options }) => [usage, ...(options ?? []).map((o) => o.flags)]),
  )
  for (const text of [overview(COMMANDS, columns), ...COMMANDS.map((command) => helpOf(command, columns))]) {
    const before = text.split("\nexamples:")[0] ?? ""
    for (const line of before.split("\n")) {
      const label = line.trim().replace(/^mvm /, "")
      if (line.length > columns && !usages.has(label)) expect(line).toBe(`no longer than ${columns}`)
    }
  }
})

describe("each command", () => {
  test.each(COMMANDS.map((command) => [verbOf(command), command] as const))(
    "mvm %s has a summary, an example of itself, and described options",
    (verb, command) => {
      expect(command.summary).toMatch(/^[a-z]/)
      expect(command.summary).not.toMatch(/\.$/)
      expect(command.examples.length).toBeGreaterThan(0)
      for (const example of command.examples) expect(example).toContain(verb)
      const names = (command.options ?? []).map(({ flags }) => flags.split(" ")[0])
      expect(new Set(names).size).toBe(names.length)
      for (const { description } of command.options ?? []) expect(description.length).toBeGreaterThan(7)
    },
  )
})
