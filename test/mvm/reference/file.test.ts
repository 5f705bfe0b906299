import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { utf8 } from "../../../src/lib/bytes.ts"
import { formatReference, parseReference } from "../../../src/mvm/reference/file.ts"
import { parseSha256sum } from "../../../src/mvm/reference/sha256sum.ts"
import { pathText } from "../../../src/tcb/measurement/measured-path.ts"
import type { ReferenceTable } from "../../../src/tcb/measurement/reference-table.ts"
import { failureOf } from "../../tcb/measurement/measured-boots.ts"

const A = "aa".repeat(32)
const B = "bb".repeat(32)

const TABLE: ReferenceTable = {
  files: new Map([
    ["/init", new Set([B])],
    ["/etc/ima/policy", new Set([B, A])],
  ]),
  required: new Set(["/etc/ima/policy"]),
  pcrs: new Map([
    [9, new Set([A])],
    [4, new Set([A, B])],
  ]),
  exclude: ["/var/cache/**"],
  measurementKind: "kernel",
  violations: "deny",
}

const TEXT = `# mvm reference 1
# measurement: kernel
# violations: deny
# required: /etc/ima/policy
# exclude: /var/cache/**
# pcr 4: ${A}
# pcr 4: ${B}
# pcr 9: ${A}
${A}  /etc/ima/policy
${B}  /etc/ima/policy
${B}  /init
`

describe("a reference file", () => {
  test("is written in one order, with the lines that sha256sum reads", () => {
    expect(formatReference(TABLE)).toBe(TEXT)
  })

  test("is read back the same", () => {
    expect(parseReference(utf8(TEXT))).toEqual(TABLE)
  })

  test("round-trips any table", () => {
    const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => bytes.toHex())
    const path = fc
      .uint8Array({ minLength: 1, maxLength: 20 })
      .map((bytes) => pathText(bytes.map((byte) => (byte === 0x20 ? 0x5f : byte))))
      // A space in the text form can only come from other blanks of Unicode, which are no plain space.
      .filter((text) => !text.includes(" "))
    const digests = fc.uniqueArray(digest, { minLength: 1, maxLength: 3 }).map((each) => new Set(each))
    const table = fc.record({
      files: fc.array(fc.tuple(path, digests), { maxLength: 8 }).map((each) => new Map(each)),
      pcrs: fc
        .array(fc.tuple(fc.integer({ min: 0, max: 9 }), digests), { maxLength: 4 })
        .map((each) => new Map(each)),
      measurementKind: fc.constantFrom("kernel" as const, "agent" as const),
      violations: fc.constantFrom("deny" as const, "warn" as const),
    })
    fc.assert(
      fc.property(table, (parts) => {
        const whole = { ...parts, required: new Set([...parts.files.keys()].slice(0, 2)), exclude: [] }
        expect(parseReference(utf8(formatReference(whole)))).toEqual(whole)
      }),
    )
  })

  test("may have comments, blank lines and no violations line", () => {
    const text = `# mvm reference 1\n\n## made by hand\n# measurement: agent\n${A}  /bin/a`
    expect(parseReference(utf8(text))).toMatchObject({ measurementKind: "agent", violations: "deny" })
  })

  const good = "# mvm reference 1\n# measurement: kernel\n"
  const cases: [string, string, string][] = [
    ["another first line", `${A}  /a\n`, "line 1: "],
    ["no measurement line", `# mvm reference 1\n${A}  /a\n`, "line 1: "],
    ["a kind there is not", "# mvm reference 1\n# measurement: both\n", "line 2: measurement"],
    ["a kind given twice", `${good}# measurement: kernel\n`, "line 3: measurement"],
    ["an unknown key", `${good}# trust: everything\n`, 'line 3: unknown key "trust"'],
    ["a comment that could be meant as a key", `${good}# trust everything\n`, "line 3: "],
    ["a number on a key without one", `${good}# measurement 4: kernel\n`, "line 3: "],
    ["a pcr without a number", `${good}# pcr: ${A}\n`, "line 3: "],
    ["a value for pcr 10, which is the log", `${good}# pcr 10: ${A}\n`, "line 3: pcr"],
    ["a digest too short", `${good}${A.slice(2)}  /a\n`, "line 3: digest"],
    ["a digest in upper case", `${good}${A.toUpperCase()}  /a\n`, "line 3: digest"],
    ["one space only", `${good}${A} /a\n`, "line 3: digest"],
    ["no path", `${good}${A}  \n`, "line 3: path"],
    ["a path with a space, which ima never logs", `${good}${A}  /a b\n`, "line 3: path"],
    ["a path with a bare backslash", `${good}${A}  /a\\b\n`, "line 3: path"],
    ["a path with a control character", `${good}${A}  /a\x1b[2J\n`, "line 3: path"],
    ["lines that end in carriage return", `${good}${A}  /a\r\n`, "line 3: path"],
    ["the same value twice", `${good}${A}  /a\n${A}  /a\n`, "line 4: the same value twice"],
    ["something required that has no digest", `${good}# required: /a\n`, "/a is required"],
    ["an exclusion too long", `${good}# exclude: /${"a".repeat(600)}\n`, "line 3: exclude"],
  ]
  test.each(cases)("with %s is refused whole, naming the line", (_, text, message) => {
    const error = failureOf(() => parseReference(utf8(text)))
    expect(error.code).toBe("config")
    expect(error.message).toContain(message)
  })

  test("that is not utf-8 is refused", () => {
    expect(failureOf(() => parseReference(new Uint8Array([0xff]))).code).toBe("config")
  })

  test("cut anywhere is refused or has fewer values, never others", () => {
    for (let cut = 0; cut < TEXT.length; cut += 1) {
      try {
        const { files } = parseReference(utf8(TEXT.slice(0, cut)))
        for (const [path, digests] of files) {
          const whole = [...TABLE.files].find(([full]) => full.startsWith(path))
          expect(whole?.[1].isSupersetOf(digests)).toBe(true)
        }
      } catch (error) {
        expect(error).toMatchObject({ code: "config" })
      }
    }
  })
})

describe("a sha256sum listing", () => {
  test("is read in text, binary and escaped form, relative or not", () => {
    const listing = `${A}  ./usr/bin/a\n${B} */usr//bin/b c\n\\${A.toUpperCase()}  x\\\\y\\nz\n`
    expect(parseSha256sum(utf8(listing))).toEqual(
      new Map([
        ["/usr/bin/a", new Set([A])],
        ["/usr/bin/b_c", new Set([B])],
        ["/x\\x5cy\\x0az", new Set([A])],
      ]),
    )
  })

  test("of this machine's sha256sum is read", async () => {
    const output = new Uint8Array(
      await new Response(Bun.spawn(["sha256sum", "/bin/sh"]).stdout).arrayBuffer(),
    )
    const hex = new Bun.CryptoHasher("sha256").update(await Bun.file("/bin/sh").arrayBuffer()).digest("hex")
    expect(parseSha256sum(output)).toEqual(new Map([["/bin/sh", new Set([hex])]]))
  })

  const cases: [string, string, string][] = [
    ["something else in it", `${A}  /a\nnot a digest\n`, "line 2: "],
    ["a sha1sum", `${"aa".repeat(20)}  /a\n`, "line 1: "],
    ["a path that leads upwards", `${A}  ../etc/passwd\n`, "line 1: path"],
    ["an escape there is not", `\\${A}  a\\tb\n`, "line 1: path"],
    ["an escape that is cut", `\\${A}  a\\\n`, "line 1: path"],
    ["a directory", `${A}  /usr/\n`, "line 1: path"],
    ["nothing in it", "\n", "line 1: "],
  ]
  test.each(cases)("with %s is refused whole, naming the line", (_, text, message) => {
    const error = failureOf(() => parseSha256sum(utf8(text)))
    expect(error.code).toBe("config")
    expect(error.message).toContain(message)
  })
})
