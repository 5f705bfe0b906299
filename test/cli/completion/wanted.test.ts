/** @module test/cli/completion/wanted */

import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { COMMANDS } from "../../../src/cli/commands.ts"
import { optionName, type CommandSpec } from "../../../src/cli/command.ts"
import { shellWords } from "../../../src/cli/completion/shell-words.ts"
import { EXCEPTIONS, wantedAt } from "../../../src/cli/completion/wanted.ts"

function values(...words: string[]): string[] {
  return wantedAt(COMMANDS, words).candidates.map(({ value }) => value)
}

function kinds(...words: string[]): readonly string[] {
  return wantedAt(COMMANDS, words).kinds
}

describe("a word that is a command", () => {
  test("is completed from the table of commands, with its summary", () => {
    expect(values("stat")).toEqual(["status"])
    expect(values("")).toEqual(expect.arrayContaining(["serve", "vm", "guest", "help", "--version"]))
    expect(values("vm", "st")).toEqual(["start", "stop"])
    expect(values("help", "vm", "st")).toEqual(["start", "stop"])
    const [start] = wantedAt(COMMANDS, ["vm", "star"]).candidates
    expect(start).toEqual({ value: "start", description: "start a VM" })
  })

  test("that there is not has nothing behind it", () => {
    for (const words of [
      ["frobnicate", ""],
      ["vm", "frobnicate", "--"],
      ["vm", "frobnicate", ""],
    ]) {
      expect(wantedAt(COMMANDS, words)).toMatchObject({ candidates: [], kinds: [] })
    }
  })
})

describe("an option", () => {
  test("is completed once, unless it may be repeated", () => {
    expect(values("vm", "create", "x", "--ker")).toEqual(["--kernel"])
    expect(values("vm", "create", "x", "--kernel", "k", "--ker")).toEqual([])
    expect(values("vm", "create", "x", "--tag", "a", "--ta")).toEqual(["--tag"])
    expect(values("vm", "list", "--")).toEqual(["--state", "--json", "--help"])
  })

  test("has its values completed, behind a blank or an equals sign", () => {
    expect(values("serve", "--log", "")).toEqual(["debug", "info", "warn", "error"])
    expect(values("serve", "--log=w")).toEqual(["--log=warn"])
    expect(values("vm", "create", "x", "--firmware", "o")).toEqual(["ovmf"])
    expect(values("serve", "--log", "info", "--log-f")).toEqual(["--log-format"])
  })

  test("says what kind of name its value is", () => {
    expect(kinds("vm", "create", "x", "--kernel", "")).toEqual(["file"])
    expect(kinds("vm", "list", "--state", "")).toEqual(["directory"])
    expect(kinds("vm", "list", "--state=/v")).toEqual(["directory"])
    expect(wantedAt(COMMANDS, ["audit", "list", "--vm=w"])).toMatchObject({
      kinds: ["vm"],
      prefix: "--vm=",
      typed: "w",
    })
    expect(kinds("audit", "list", "--kind", "")).toEqual(["audit-kind"])
    expect(kinds("guest", "recv", "--local", "")).toEqual(["endpoint"])
    expect(kinds("serve", "--arena", "")).toEqual([])
    expect(kinds("measure", "show", "--group", "")).toEqual(["tag"])
    expect(kinds("guest", "recv", "--deposited", "--again", "")).toEqual(["deposit"])
    expect(kinds("guest", "serve", "x", "--source", "")).toEqual(["peer"])
  })

  test("whose value is a user or a group of the system has no names of ours", () => {
    expect(kinds("guest", "serve", "x", "--user", "")).toEqual([])
    expect(kinds("guest", "agent", "--group", "")).toEqual([])
  })

  test("that can do without a value leaves room for the next argument", () => {
    expect(kinds("guest", "send", "--wait", "")).toEqual(["peer"])
    expect(kinds("guest", "send", "--wait", "5s", "")).toEqual(["peer"])
    expect(kinds("guest", "send", "--wait", "5s", "db", "")).toEqual(["file"])
  })

  test("does not count behind two dashes", () => {
    expect(kinds("guest", "send", "db", "--", "--lo")).toEqual(["file"])
  })
})

describe("an exception", () => {
  test.each(Object.keys(EXCEPTIONS))("%s is an argument or an option that there is", (key) => {
    const usages = COMMANDS.flatMap(({ usage }) => {
      const verb = usage.replace(/ [<[].*$/, "")
      return (usage.match(/[<[][^>\]]*[>\]]/g) ?? []).map((placeholder) => `${verb} ${placeholder}`)
    })
    const flags = COMMANDS.flatMap(({ options = [] }) => options.map((option) => option.flags))
    expect([...usages, ...flags]).toContain(key)
  })
})

describe("an argument", () => {
  test("is of the kind that the usage line says", () => {
    expect(kinds("vm", "start", "w")).toEqual(["vm"])
    expect(kinds("vm", "create", "")).toEqual([])
    expect(kinds("measure", "explain", "")).toEqual(["vm", "channel"])
    expect(kinds("measure", "approve", "web", "")).toEqual([])
    expect(kinds("channel", "close", "3")).toEqual(["channel"])
    expect(kinds("deposit", "rm", "")).toEqual(["deposit"])
    expect(kinds("policy", "test", "")).toEqual(["service"])
    expect(kinds("policy", "test", "default", "")).toEqual(["vm"])
    expect(kinds("policy", "test", "default", "a", "b", "")).toEqual([])
  })

  test("counts without the options before it", () => {
    expect(kinds("policy", "test", "--json", "--state", "/x", "default", "")).toEqual(["vm"])
  })

  const joined: CommandSpec = {
    usage: "guest join <target:service> [...path]",
    summary: "",
    options: [{ flags: "--socket <path>", description: "" }],
    examples: [],
    run: async () => {},
  }

  test("with a colon is completed in two steps", () => {
    expect(wantedAt([joined], ["guest", "join", "d"])).toMatchObject({ kinds: ["peer"], suffix: ":" })
    expect(wantedAt([joined], ["guest", "join", "db:po"])).toMatchObject({
      kinds: ["service"],
      prefix: "db:",
      typed: "po",
      target: "db",
      isGuest: true,
    })
  })

  test("of a copy is a file here or one there", () => {
    expect(wantedAt(COMMANDS, ["guest", "cp", "a", ""])).toMatchObject({
      kinds: ["file", "peer"],
      suffix: ":",
    })
    expect(wantedAt(COMMANDS, ["cp", "db:x"])).toMatchObject({ kinds: [], prefix: "db:" })
  })

  test("that may be repeated is completed every time", () => {
    expect(wantedAt([joined], ["guest", "join", "a:b", "x", "y", ""])).toMatchObject({ kinds: ["file"] })
  })
})

describe("a line as bash hands it over", () => {
  test.each([
    ["mvm ", [""]],
    ["mvm vm st", ["vm", "st"]],
    ["mvm  vm\tlist ", ["vm", "list", ""]],
    ["mvm vm start 'a b' \"c d\"", ["vm", "start", "a b", "c d"]],
    ["mvm send a\\ b", ["send", "a b"]],
    ["mvm send 'open", ["send", "open"]],
    ["mvm join db:postgres --log=de", ["join", "db:postgres", "--log=de"]],
    ['mvm x ""', ["x", ""]],
  ])("%j is taken apart into words", (line, words) => {
    expect(shellWords(line)).toEqual(words)
  })
})

test("every option that a command takes one of a few values for says which", () => {
  const missing: string[] = []
  for (const file of new Bun.Glob("**/*.ts").scanSync(join(import.meta.dir, "../../../src/cli"))) {
    const source = readFileSync(join(import.meta.dir, "../../../src/cli", file), "utf8")
    for (const [, name = ""] of source.matchAll(/\boneOf\("(\w+)"/g)) {
      const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
      const own = COMMANDS.flatMap((spec) => spec.options ?? []).filter(
        (option) => optionName(option) === flag,
      )
      if (own.length === 0 || !own.some(({ values: listed }) => listed)) missing.push(`${file}: ${flag}`)
    }
  }
  expect(missing).toEqual([])
})
