import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { concat, utf8 } from "../../../src/lib/bytes.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { encodeImaEntry } from "../../../src/tcb/measurement/ima-encode.ts"
import { parseImaEntries, templateDigestSha1 } from "../../../src/tcb/measurement/ima-log.ts"
import { BOOTS, OVMF_BOOT, codeOf, failureOf, runningPcr10 } from "./measured-boots.ts"

const DIGEST = sha256(utf8("content"))

function le(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer)
}

function field(bytes: Uint8Array): Uint8Array {
  return concat(le(bytes.length), bytes)
}

/** An entry from its parts, so that each can be wrong. */
function entry(parts: { pcr?: number; sha1?: Uint8Array; name?: string; data: Uint8Array }): Uint8Array {
  const { pcr = 10, data, sha1 = templateDigestSha1(data), name = "ima-ng" } = parts
  return concat(le(pcr), sha1, field(utf8(name)), field(data))
}

function ngData(digest: Uint8Array, path: Uint8Array): Uint8Array {
  return concat(field(digest), field(path))
}

const SHA256_FIELD = concat(utf8("sha256:\0"), DIGEST)

describe.each(BOOTS)("a real kernel's log ($name)", (boot) => {
  test("has the entries that the kernel itself prints", () => {
    const { entries, consumedBytes } = parseImaEntries(boot.imaLog, 0)
    const lines = entries.map(({ pcr, templateDigestSha1, templateName, fileDigest, path }) =>
      [
        pcr,
        templateDigestSha1.toHex(),
        templateName,
        `${fileDigest.algorithm}:${fileDigest.hex}`,
        path,
        "",
      ].join(" "),
    )
    expect(lines).toEqual(boot.imaAscii)
    expect(consumedBytes).toBe(boot.imaLog.length)
    expect(entries.map((each) => each.violation)).toEqual(entries.map((_, i) => i === entries.length - 1))
  })

  test("replays to the pcr 10 that the tpm reported, violation included", () => {
    const { entries } = parseImaEntries(boot.imaLog, 0)
    expect(runningPcr10(entries.map((each) => each.extendDigest)).at(-1)).toEqual(boot.pcrs[10]!)
  })

  test("begins with boot_aggregate, the digest of pcrs 0-9", () => {
    const [first] = parseImaEntries(boot.imaLog, 0).entries
    expect(first?.path).toBe("boot_aggregate")
    expect(first?.fileDigest.hex).toBe(sha256(...boot.pcrs.slice(0, 10)).toHex())
  })

  test("is reproduced byte for byte by the encoder", () => {
    const again = parseImaEntries(boot.imaLog, 0).entries.map((each) =>
      encodeImaEntry({
        path: each.path,
        sha256: Uint8Array.fromHex(each.fileDigest.hex),
        violation: each.violation,
      }),
    )
    expect(concat(...again.map((each) => each.bytes))).toEqual(boot.imaLog)
  })

  test("cut anywhere but between entries is incomplete, and is waited for when more is to come", () => {
    const ends = new Set([0])
    for (const each of parseImaEntries(boot.imaLog, 0).entries) ends.add(each.offset + each.lengthBytes)
    for (let cut = 0; cut < boot.imaLog.length; cut += 1) {
      const part = boot.imaLog.subarray(0, cut)
      const { consumedBytes } = parseImaEntries(part, 0, { more: true })
      expect(consumedBytes).toBe(Math.max(...[...ends].filter((end) => end <= cut)))
      if (!ends.has(cut)) expect(codeOf(() => parseImaEntries(part, 0))).toBe("evidence_malformed")
    }
  })
})

describe("the encoder", () => {
  test("round-trips any path and digest in both templates", () => {
    const path = fc
      .string({ unit: "grapheme", minLength: 1, maxLength: 200 })
      .filter((text) => !/[\0 \\]/.test(text))
    fc.assert(
      fc.property(path, fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.boolean(), (text, digest, ng) => {
        const template = ng ? "ima-ng" : "ima-sig"
        const encoded = encodeImaEntry({ path: text, sha256: digest, template })
        const { entries } = parseImaEntries(encoded.bytes, 0)
        expect(entries).toHaveLength(1)
        expect(entries[0]!.fileDigest).toEqual({ algorithm: "sha256", hex: digest.toHex() })
        expect(entries[0]!.extendDigest).toEqual(encoded.extendDigest)
        expect(entries[0]!.templateName).toBe(template)
      }),
    )
  })

  test("writes a space as the kernel does, as an underscore", () => {
    const { bytes } = encodeImaEntry({ path: "/opt/a program", sha256: DIGEST })
    expect(parseImaEntries(bytes, 0).entries[0]!.path).toBe("/opt/a_program")
  })

  test("refuses what the format cannot hold", () => {
    expect(() => encodeImaEntry({ path: "", sha256: DIGEST })).toThrow(RangeError)
    expect(() => encodeImaEntry({ path: "/a\0b", sha256: DIGEST })).toThrow(RangeError)
    expect(() => encodeImaEntry({ path: "/".repeat(4097), sha256: DIGEST })).toThrow(RangeError)
    expect(() => encodeImaEntry({ path: "/a", sha256: new Uint8Array(20) })).toThrow(RangeError)
  })
})

describe("the parser", () => {
  const good = ngData(SHA256_FIELD, utf8("/bin/a\0"))

  test("reads the templates the kernel has, and the signature of a signed file", () => {
    const signed = concat(good, field(utf8("signature")))
    const [ng, sig] = parseImaEntries(
      concat(entry({ data: good }), entry({ data: signed, name: "ima-sig" })),
      0,
    ).entries
    expect(ng).toMatchObject({ templateName: "ima-ng", path: "/bin/a", offset: 0 })
    expect(sig).toMatchObject({ templateName: "ima-sig", signature: utf8("signature") })
  })

  test("checks a measured buffer against its digest", () => {
    const data = concat(ngData(SHA256_FIELD, utf8("kexec-cmdline\0")), field(utf8("content")))
    expect(parseImaEntries(entry({ data, name: "ima-buf" }), 0).entries[0]!.path).toBe("kexec-cmdline")
    const other = concat(ngData(SHA256_FIELD, utf8("kexec-cmdline\0")), field(utf8("other")))
    expect(codeOf(() => parseImaEntries(entry({ data: other, name: "ima-buf" }), 0))).toBe(
      "evidence_log_template",
    )
  })

  test("writes hostile names in a printable form that no other name has", () => {
    const name = new Uint8Array([0x2f, 0x1b, 0x5b, 0xff, 0x0a, 0x5c, 0])
    const [first] = parseImaEntries(entry({ data: ngData(SHA256_FIELD, name) }), 0).entries
    expect(first!.path).toBe("/\\x1b[\\xff\\x0a\\x5c")
  })

  test("tells a violation from an entry whose digest is zero", () => {
    const zero = ngData(concat(utf8("sha256:\0"), new Uint8Array(32)), utf8("/a\0"))
    const sha1 = new Uint8Array(20)
    expect(parseImaEntries(entry({ data: zero, sha1 }), 0).entries[0]!.violation).toBe(true)
    expect(parseImaEntries(entry({ data: zero }), 0).entries[0]!.violation).toBe(false)
    expect(codeOf(() => parseImaEntries(entry({ data: good, sha1 }), 0))).toBe("evidence_malformed")
  })

  test("names the offset in the log, not in the chunk", () => {
    const error = failureOf(() => parseImaEntries(entry({ data: good, pcr: 11 }), 5000))
    expect(error.message).toBe("ima entry at 5000: pcr: 11, 10 expected")
  })

  const cases: [string, () => Uint8Array, string][] = [
    ["another pcr", () => entry({ data: good, pcr: 9 }), "evidence_malformed"],
    ["a template it does not know", () => entry({ data: good, name: "ima" }), "evidence_log_template"],
    [
      "a template digest of other data",
      () => entry({ data: good, sha1: DIGEST.slice(0, 20) }),
      "evidence_log_template",
    ],
    [
      "a template name past its bound",
      () => entry({ data: good, name: "x".repeat(17) }),
      "evidence_malformed",
    ],
    [
      "bytes behind the last field",
      () => entry({ data: concat(good, new Uint8Array(1)) }),
      "evidence_malformed",
    ],
    ["a field too few", () => entry({ data: good, name: "ima-sig" }), "evidence_malformed"],
    ["a field too many", () => entry({ data: concat(good, field(DIGEST)) }), "evidence_malformed"],
    [
      "an unknown digest algorithm",
      () => entry({ data: ngData(concat(utf8("md5:\0"), DIGEST), utf8("/a\0")) }),
      "evidence_malformed",
    ],
    [
      "a digest of the wrong size",
      () => entry({ data: ngData(SHA256_FIELD.slice(1), utf8("/a\0")) }),
      "evidence_malformed",
    ],
    [
      "a digest without an algorithm",
      () => entry({ data: ngData(DIGEST, utf8("/a\0")) }),
      "evidence_malformed",
    ],
    ["a path without nul", () => entry({ data: ngData(SHA256_FIELD, utf8("/a")) }), "evidence_malformed"],
    [
      "a path with a nul inside",
      () => entry({ data: ngData(SHA256_FIELD, utf8("/a\0b\0")) }),
      "evidence_malformed",
    ],
    ["an empty path", () => entry({ data: ngData(SHA256_FIELD, utf8("\0")) }), "evidence_malformed"],
    [
      "a path over 4096 bytes",
      () => entry({ data: ngData(SHA256_FIELD, utf8(`${"a".repeat(4097)}\0`)) }),
      "evidence_malformed",
    ],
    [
      "a field length past the data",
      () => entry({ data: concat(le(0xffffffff), DIGEST) }),
      "evidence_malformed",
    ],
  ]
  test.each(cases)("refuses %s", (_, bytes, code) => {
    expect(codeOf(() => parseImaEntries(bytes(), 0))).toBe(code as never)
  })

  test("refuses a length out of bounds at once, even when more is to come", () => {
    const header = concat(le(10), new Uint8Array(20))
    const more = { more: true }
    expect(codeOf(() => parseImaEntries(concat(header, le(1 << 30)), 0, more))).toBe("evidence_malformed")
    const named = concat(header, field(utf8("ima-ng")), le(16 * 1024))
    expect(codeOf(() => parseImaEntries(named, 0, more))).toBe("evidence_malformed")
  })

  test("survives any single changed byte: an entry, or an error of its own", () => {
    fc.assert(
      fc.property(fc.nat(OVMF_BOOT.imaLog.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const log = OVMF_BOOT.imaLog.slice()
        log[at]! ^= flip
        try {
          parseImaEntries(log, 0)
        } catch (error) {
          expect(error).toBeInstanceOf(MvmError)
        }
      }),
      { numRuns: 2000 },
    )
  })
})
