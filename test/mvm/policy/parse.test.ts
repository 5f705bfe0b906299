/** @module test/mvm/policy/parse */

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { stringify } from "smol-toml"
import { MvmError } from "../../../src/lib/errors.ts"
import { Places } from "../../../src/lib/toml-places.ts"
import { parsePolicy } from "../../../src/mvm/policy/parse.ts"
import { parseSize } from "../../../src/mvm/policy/size.ts"

/** One rule, its keys on lines 2 to 5. */
const RULE = '[[rule]]\nservice = "web"\nfrom = "a"\nto = "b"\naction = "allow"\n'

function message(text: string): string {
  try {
    parsePolicy(text, "/etc/mvm/policy.toml")
  } catch (error) {
    if (error instanceof MvmError && error.code === "policy_broken") return error.message
    throw error
  }
  throw new Error("the policy was accepted")
}

describe("a policy", () => {
  test("is read with all that a rule may say", () => {
    const digest = "Ab".repeat(32)
    const policy = parsePolicy(
      `
[tags]
work = ["web", "db"]

[[rule]]
comment = "backups"
service = ["backup", "restore*"]
from = "tag:work"
to = ["@any", "x?z"]
action = "allow"
target = "vault"
programs = ["/usr/bin/mvm", { path = "/bin/b", digest = "sha256:${digest}" }, { path = "/bin/c" }]
isolation = "dedicated"
transport = "memory"
digest = "sha256"
measurement = ["agent", "kernel"]
max_bytes = "10 GiB"
max_seconds = 60
max_channels = 2
deposit = true
`,
      "/etc/mvm/policy.toml",
    )
    expect(policy.rules).toEqual([
      {
        rule: { index: 0, line: 5, comment: "backups", label: "policy.toml:5" },
        action: "allow",
        service: [
          { kind: "name", text: "backup" },
          { kind: "glob", text: "restore*" },
        ],
        from: [{ kind: "tag", text: "tag:work", tag: "work" }],
        to: [
          { kind: "any", text: "@any" },
          { kind: "glob", text: "x?z" },
        ],
        programs: [
          { path: "/usr/bin/mvm", digest: undefined },
          { path: "/bin/b", digest: digest.toLowerCase() },
          { path: "/bin/c", digest: undefined },
        ],
        target: "vault",
        constraints: {
          isolation: "dedicated",
          transport: "memory",
          digest: "sha256",
          measurement: ["agent", "kernel"],
          maxBytes: 10 * 2 ** 30,
          maxSeconds: 60,
          maxChannels: 2,
          deposit: true,
        },
      },
    ])
    expect(policy.tags).toEqual(new Map([["work", new Set(["web", "db"])]]))
  })

  test("counts kernel logs alone unless a rule or the settings say otherwise", () => {
    const plain = parsePolicy(RULE, "p.toml").rules[0]!.constraints
    expect(plain).toEqual({
      isolation: undefined,
      transport: "any",
      digest: "records",
      measurement: ["kernel"],
      maxBytes: undefined,
      maxSeconds: undefined,
      maxChannels: undefined,
      deposit: false,
    })
    const settings = '[settings]\nmeasurement = "agent"\nmax_bytes = 5\n'
    const [one, two] = parsePolicy(`${settings}${RULE}${RULE}max_bytes = "1 KiB"\n`, "p.toml").rules
    expect([one!.constraints.measurement, one!.constraints.maxBytes]).toEqual([["agent"], 5])
    expect([two!.constraints.measurement, two!.constraints.maxBytes]).toEqual([["agent"], 1024])
  })

  test("may be empty, begin with a byte-order mark, and have Windows line ends", () => {
    expect(parsePolicy("", "p.toml").rules).toEqual([])
    expect(parsePolicy(`\uFEFF${RULE.replaceAll("\n", "\r\n")}`, "p.toml").rules[0]!.rule.line).toBe(1)
  })
})

describe("a broken policy names line and column", () => {
  const cases: [string, string, string][] = [
    ["no TOML", `${RULE}x = = 1\n`, "6:5: invalid value"],
    ["an open string", `${RULE}x = "abc\n`, "6:9: "],
    ["a key twice", `${RULE}to = "c"\n`, "6:"],
    ["an unknown key", `${RULE}bogus = 1\n`, '6:1: unknown key "bogus"'],
    ["an indented unknown key", `${RULE}\n\t Program = ["/x"]\n`, '7:3: unknown key "Program"'],
    ["an unknown key in the second rule", `${RULE}\n# c\n${RULE}bogus = 1\n`, '13:1: unknown key "bogus"'],
    ["an unknown table", `${RULE}\n[tagz]\na = ["b"]\n`, '7:1: unknown key "tagz"'],
    ["a quoted unknown key", `${RULE}"a\\tb" = 1\n`, '6:1: unknown key "a\\tb"'],
    ["a dotted key", `${RULE}programs.path = "/x"\n`, "6:1: programs: "],
    ["rule as a table", RULE.replace("[[rule]]", "[rule]"), "1:1: rule: expected [[rule]] tables"],
    ["a missing key", RULE.replace('from = "a"\n', ""), '1:1: "from" is missing'],
    ["a missing action", RULE.replace('action = "allow"\n', ""), '1:1: "action" is missing'],
    ["a wrong action", RULE.replace("allow", "permit"), '5:1: action: expected "allow" or "deny"'],
    ["a wrong type", RULE.replace('"a"', "5"), "3:1: from: expected a VM name"],
    ["an empty list", RULE.replace('"a"', "[]"), "3:1: from: expected a VM name"],
    ["a bad name", RULE.replace('"a"', '"a b"'), "3:1: from: expected a VM name"],
    ["a bad element", RULE.replace('"a"', '["a",\n  "@all"]'), "4:3: from: expected a VM name"],
    ["a tag for a service", RULE.replace('"web"', '"tag:x"'), "2:1: service: expected a service name"],
    ["an empty tag", RULE.replace('"a"', '"tag:"'), "3:1: from: expected a VM name"],
    ["a bracket glob", RULE.replace('"a"', '"[ab]*"'), "3:1: from: expected a VM name"],
    ["a glob as target", `${RULE}target = "x*"\n`, "6:1: target: expected a name"],
    [
      "a relative program",
      `${RULE}programs = ["/ok",  "mvm"]\n`,
      "6:21: programs: expected an absolute path",
    ],
    ["programs as text", `${RULE}programs = "/x"\n`, "6:1: programs: expected a list"],
    ["no programs", `${RULE}programs = []\n`, "6:1: programs: expected at least one"],
    ["a bad digest", `${RULE}programs = [{ path = "/x", digest = "ab" }]\n`, "6:28: digest: expected sha256"],
    [
      "an unknown program key",
      `${RULE}programs = [{ path = "/x", hash = "" }]\n`,
      '6:28: unknown key "hash"',
    ],
    [
      "a program without path",
      `${RULE}programs = [{ digest = "${"ab".repeat(32)}" }]\n`,
      '6:13: "path" is missing',
    ],
    ["a size without unit", `${RULE}max_bytes = "10 apples"\n`, "6:1: max_bytes: expected a size"],
    ["no bytes", `${RULE}max_bytes = 0\n`, "6:1: max_bytes: expected a size"],
    ["a negative limit", `${RULE}max_seconds = -1\n`, "6:1: max_seconds: expected a whole number"],
    ["a fraction", `${RULE}max_channels = 1.5\n`, "6:1: max_channels: expected a whole number"],
    [
      "a huge number",
      `${RULE}max_seconds = 9223372036854775807\n`,
      "6:1: max_seconds: expected a whole number",
    ],
    ["a bad isolation", `${RULE}isolation = "none"\n`, '6:1: isolation: expected "arena" or "dedicated"'],
    [
      "a bad measurement",
      `${RULE}measurement = ["kernel", "none"]\n`,
      '6:26: measurement: expected "kernel"',
    ],
    ["no measurement", `${RULE}measurement = []\n`, '6:1: measurement: expected "kernel"'],
    ["a comment of two lines", `${RULE}comment = """a\nb"""\n`, "6:1: comment: expected one line"],
    [
      "a demand where it denies",
      `${RULE.replace("allow", "deny")}max_seconds = 1\n`,
      '6:1: "max_seconds" means nothing',
    ],
    [
      "a redirect where it denies",
      `${RULE.replace("allow", "deny")}target = "x"\n`,
      '6:1: "target" means nothing',
    ],
    ["a bad tag member", `[tags]\nx = ["a", "b c"]\n`, "2:11: x: expected a name"],
    ["a tag that is no list", `[tags]\nx = "a"\n`, "2:1: x: expected a list of VM names"],
    ["an unknown setting", "[settings]\ntimeout = 5\n", '2:1: unknown key "timeout"'],
    ["a dotted setting", "settings.timeout = 5\n", '1:1: unknown key "timeout"'],
    ["a prototype key", "__proto__ = 1\n", "1:1: document contains an unsafe property"],
    ["a constructor key", `${RULE}constructor = 1\n`, "6:1: document contains an unsafe property"],
    ["deep nesting", `x = ${"[".repeat(5000)}${"]".repeat(5000)}\n`, "1:"],
  ]
  for (const [what, text, expected] of cases) {
    test(`for ${what}`, () => {
      expect(message(text)).toStartWith(`policy.toml:${expected}`)
    })
  }

  test("and of several faults the first in the file", () => {
    const text = RULE.replace('"b"', '"b c"') + "bogus = 1\n"
    expect(message(text)).toStartWith("policy.toml:4:1: to:")
  })

  test("in one line without control characters, whatever the key", () => {
    const property = fc.property(fc.string({ unit: "binary", maxLength: 40 }), (key) => {
      let said: string
      try {
        said = message(`${RULE}${stringify({ [key]: 1 })}`)
      } catch {
        return
      }
      expect(said).toMatch(/^[^\p{Cc}]+$/u)
    })
    fc.assert(property)
  })

  test("when it is longer than 1 MiB", () => {
    expect(message(`#${"x".repeat(1 << 20)}`)).toContain("longer than 1 MiB")
  })
})

describe("hostile text", () => {
  test("is refused or read, and never anything else", () => {
    const pieces = fc.constantFrom(
      ...[
        "[[rule]]",
        "[tags]",
        "service",
        "from",
        "=",
        '"a"',
        "'",
        '"""',
        "'''",
        "\n",
        "[",
        "]",
        "{",
        "}",
        ",",
        "#",
      ],
      ...[".", "\\", "\u0000", "\uD800", "é", "1e9", "0x", "inf", "nan", "1979-05-27 07:32:00Z", "true", " "],
    )
    const property = fc.property(fc.array(pieces, { maxLength: 40 }), (parts) => {
      try {
        parsePolicy(parts.join(""), "p.toml")
      } catch (error) {
        expect((error as MvmError).code).toBe("policy_broken")
        expect((error as MvmError).message).toMatch(/^p\.toml:\d+:\d+: /)
      }
    })
    fc.assert(property, { numRuns: 2000 })
  })

  test("that is a good policy cut short never names other VMs", () => {
    const text = `${RULE}programs = ["/usr/bin/mvm"]\n`
    const property = fc.property(fc.nat(text.length), (length) => {
      const cut = text.slice(0, length)
      let rules
      try {
        rules = parsePolicy(cut, "p.toml").rules
      } catch {
        return
      }
      for (const rule of rules) {
        expect(rule.from.map((pattern) => pattern.text)).toEqual(["a"])
        expect(rule.to.map((pattern) => pattern.text)).toEqual(["b"])
      }
    })
    fc.assert(property, { numRuns: 200 })
  })
})

describe("places", () => {
  test("are those of the keys, for any document the TOML library writes", () => {
    const keys = fc.string({ minLength: 1, maxLength: 6 }).filter((key) => key !== "__proto__")
    const scalars = fc.oneof(fc.string(), fc.boolean(), fc.integer())
    const values = fc.oneof(
      scalars,
      fc.array(scalars, { maxLength: 3 }),
      fc.dictionary(keys, scalars, { maxKeys: 3 }),
    )
    const documents = fc.dictionary(keys, values, { minKeys: 1, maxKeys: 6 })
    const property = fc.property(documents, (document) => {
      const text = stringify(document)
      const lines = text.split("\n")
      const places = new Places(text)
      for (const [key, value] of Object.entries(document)) {
        const { line, column } = places.of([key])
        const rest = lines[line - 1]!.slice(column - 1)
        const isTable = typeof value === "object" && !Array.isArray(value)
        const name = /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key).slice(0, 2)
        expect(rest.startsWith(isTable && Object.keys(value).length > 0 ? `[${name}` : name) || isTable).toBe(
          true,
        )
      }
    })
    fc.assert(property)
  })

  test("follow strings of all kinds, tables in lists, dots and comments", () => {
    const text = [
      '# "not" = a key',
      'a = """',
      '[[x]] "" b = 1',
      '""""',
      "b.'c d'.\"e\" = 'it # is'",
      "c = [ # [",
      "  1, '''",
      "]''', { d = 1, e = [2] },",
      "]",
      "[[t]]",
      "k = 1979-05-27 07:32:00 # x = 1",
      "[[t]]",
      "[t.u]",
      "  k = 1",
      "[[t.v]]",
      "k = { a.b = 1 }",
    ].join("\n")
    const places = new Places(text)
    const at = (...path: (string | number)[]) => {
      const { line, column } = places.of(path)
      return `${line}:${column}`
    }
    expect(at("a")).toBe("2:1")
    expect(at("b", "c d", "e")).toBe("5:1")
    expect(at("c", 1)).toBe("7:6")
    expect(at("c", 2, "e")).toBe("8:16")
    expect(at("c", 2, "e", 0)).toBe("8:21")
    expect(at("t", 0, "k")).toBe("11:1")
    expect(at("t", 1)).toBe("12:1")
    expect(at("t", 1, "u", "k")).toBe("14:3")
    expect(at("t", 1, "v", 0, "k", "a", "b")).toBe("16:7")
    expect(at("nothing")).toBe("1:1")
  })
})

describe("sizes", () => {
  test("are read with binary and decimal units", () => {
    const good: [string | number, number][] = [
      [1, 1],
      ["512", 512],
      ["1 B", 1],
      ["64KiB", 65_536],
      ["10 gib", 10 * 2 ** 30],
      ["1.5 TB", 1.5e12],
      ["0.5 KiB", 512],
    ]
    for (const [text, bytes] of good) expect(parseSize(text)).toBe(bytes)
    const bad = [
      "",
      "0",
      "-1",
      "1 XB",
      "1  KB",
      "KiB",
      "0.3 B",
      "1e3",
      "9999999 TiB",
      0,
      -1,
      1.5,
      Number.NaN,
      null,
      {},
      [5],
    ]
    for (const value of bad) expect(parseSize(value)).toBeUndefined()
  })
})
