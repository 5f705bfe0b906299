import { describe, expect, test } from "bun:test"
import { sha256 } from "../../../src/lib/crypto.ts"
import { toHex, utf8 } from "../../../src/lib/bytes.ts"
import { Appraiser, type Appraisal } from "../../../src/tcb/measurement/appraise.ts"
import type { Check } from "../../../src/tcb/measurement/check.ts"
import {
  BOOT_AGGREGATE,
  allowFile,
  learnReference,
  type Measured,
  type ReferenceTable,
} from "../../../src/tcb/measurement/reference-table.ts"
import { MeasurementLog } from "../../../src/tcb/measurement/replay.ts"
import type { VerifiedQuote } from "../../../src/tcb/measurement/quote.ts"
import { OVMF_BOOT, verifiedQuote } from "./measured-boots.ts"

const QUOTE = verifiedQuote(OVMF_BOOT)
const POLICY = "/etc/ima/policy"

function seenOf(boot = OVMF_BOOT): Measured[] {
  const log = new MeasurementLog()
  log.advance(boot.imaLog, 0, boot.pcrs[10]!)
  return [...log.seen]
}

const SEEN = seenOf()
/** The capture ends with a violation; most cases want the boot without it. */
const CLEAN = SEEN.filter((seen) => !seen.violation)

function learn(options: { pcrs?: number[]; required?: string[] } = {}): ReferenceTable {
  const { pcrs = [4, 9], required = [POLICY] } = options
  const values = new Map(pcrs.map((index) => [index, OVMF_BOOT.pcrs[index]!]))
  return learnReference(CLEAN, { measurementKind: "kernel", required, pcrs: values }).table
}

function appraise(table: ReferenceTable | undefined, measured: Iterable<Measured>, quote = QUOTE): Appraisal {
  return new Appraiser({ table, vm: "web", kind: "kernel" }).appraise(quote, measured)
}

function failed(appraisal: Appraisal): Check[] {
  return appraisal.checks.filter((check) => !check.ok && check.severity === "error")
}

function program(path: string, content = path): Measured {
  const hex = toHex(sha256(utf8(content)))
  return { path, fileDigest: { algorithm: "sha256", hex }, violation: false }
}

function quoteWith(pcrs: Uint8Array[]): VerifiedQuote {
  return { ...QUOTE, pcrs } as VerifiedQuote
}

describe("a boot like the one that was learnt", () => {
  test("is trusted, and every check says so", () => {
    const appraisal = appraise(learn(), CLEAN)
    expect(appraisal.verdict).toBe("trusted")
    expect(appraisal.checks.every((check) => check.ok)).toBe(true)
    expect(appraisal.checks.map((check) => check.name)).toEqual([
      "kind",
      "boot_aggregate",
      "pcr",
      "pcr",
      "required",
      "files",
    ])
  })

  test("is trusted when entries come in several evidences", () => {
    const appraiser = new Appraiser({ table: learn(), vm: "web", kind: "kernel" })
    appraiser.appraise(QUOTE, CLEAN.slice(0, 4))
    expect(appraiser.appraise(QUOTE, CLEAN.slice(4)).verdict).toBe("trusted")
    expect(appraiser.appraise(QUOTE).verdict).toBe("trusted")
  })

  test("may pin boot_aggregate as any other entry", () => {
    const hex = CLEAN[0]!.fileDigest.hex
    const table = { ...allowFile(learn(), BOOT_AGGREGATE, hex), required: new Set([BOOT_AGGREGATE, POLICY]) }
    expect(appraise(table, CLEAN).verdict).toBe("trusted")
    const other = { ...table, files: new Map(table.files).set(BOOT_AGGREGATE, new Set(["00".repeat(32)])) }
    expect(failed(appraise(other, CLEAN)).map((check) => check.name)).toEqual(["required", "file"])
  })
})

describe("a program that is not in the table", () => {
  test("makes the vm untrusted, and is named on top with the command that allows it", () => {
    const [first, ...rest] = failed(appraise(learn(), [...CLEAN, program("/tmp/it's me")]))
    expect(rest).toEqual([])
    const hex = toHex(sha256(utf8("/tmp/it's me")))
    expect(first).toEqual({
      name: "file",
      ok: false,
      severity: "error",
      subject: "/tmp/it's me",
      expected: "not in the table",
      seen: `sha256:${hex}`,
      message: `/tmp/it's me is not in the reference table (sha256:${hex})`,
      approve: `mvm measure approve web '/tmp/it'\\''s me' --digest ${hex}`,
    })
  })

  test("is one check however often it runs, and stays failed", () => {
    const appraiser = new Appraiser({ table: learn(), vm: "web", kind: "kernel" })
    appraiser.appraise(QUOTE, [...CLEAN, program("/x"), program("/x")])
    const appraisal = appraiser.appraise(QUOTE, [program("/bin/y")])
    expect(failed(appraisal).map((check) => check.subject)).toEqual(["/x", "/bin/y"])
  })

  test("fails too when it is an allowed program with other content, or allowed content by another name", () => {
    const known = CLEAN.find((seen) => seen.path === "/bin/dyn-true")!
    const [content] = failed(appraise(learn(), [...CLEAN, program("/bin/dyn-true", "changed")]))
    expect(content).toMatchObject({ subject: "/bin/dyn-true", expected: `sha256:${known.fileDigest.hex}` })
    const [name] = failed(appraise(learn(), [...CLEAN, { ...known, path: "/bin/sshd" }]))
    expect(name).toMatchObject({ subject: "/bin/sshd", expected: "not in the table" })
  })

  test("fails when its digest is of another algorithm, with no command to allow it", () => {
    const { path, violation } = CLEAN[4]!
    const [first] = failed(
      appraise(learn(), [
        ...CLEAN,
        { path, violation, fileDigest: { algorithm: "sha1", hex: "00".repeat(20) } },
      ]),
    )
    expect(first).toMatchObject({ subject: path, seen: `sha1:${"00".repeat(20)}` })
    expect(first).not.toHaveProperty("approve")
  })

  test("is passed over where a glob excludes it, unless it is required", () => {
    const excluding = { ...learn(), exclude: ["/var/cache/**", "/etc/**"] }
    expect(appraise(excluding, [...CLEAN, program("/var/cache/a/b")]).verdict).toBe("trusted")
    expect(appraise(excluding, [...CLEAN, program(POLICY, "another policy")]).verdict).toBe("untrusted")
  })

  test("is allowed beside the old one during an upgrade", () => {
    const upgraded = program("/bin/dyn-true", "new version")
    const table = allowFile(learn(), upgraded.path, upgraded.fileDigest.hex)
    expect(appraise(table, CLEAN).verdict).toBe("trusted")
    expect(appraise(table, [...CLEAN, upgraded]).verdict).toBe("trusted")
  })

  test("is counted past the checks that are kept, so that no flood hides or fills", () => {
    const flood = Array.from({ length: 2000 }, (_, i) => program(`/tmp/${i}`))
    const appraisal = appraise(learn(), [...CLEAN, ...flood])
    expect(appraisal.verdict).toBe("untrusted")
    expect(failed(appraisal)).toHaveLength(500)
    expect(appraisal.moreFailed).toBe(1500)
  })
})

describe("a boot that was not measured as it must be", () => {
  test("is untrusted with an empty log, as with ima switched off", () => {
    const names = failed(appraise(learn(), [])).map((check) => check.name)
    expect(names).toEqual(["boot_aggregate", "required"])
  })

  test("is untrusted when the policy was not loaded, or is another", () => {
    const without = CLEAN.filter((seen) => seen.path !== POLICY)
    expect(failed(appraise(learn(), without))[0]).toMatchObject({ name: "required", subject: POLICY })
    const other = CLEAN.map((seen) => (seen.path === POLICY ? program(POLICY, "weaker") : seen))
    expect(failed(appraise(learn(), other)).map((check) => check.name)).toEqual(["required", "file"])
  })

  test("is untrusted when the log does not begin with boot_aggregate", () => {
    const reordered = [CLEAN[1]!, CLEAN[0]!, ...CLEAN.slice(2)]
    expect(failed(appraise(learn(), reordered)).map((check) => check.name)).toEqual([
      "boot_aggregate",
      "boot_aggregate",
    ])
  })

  test("is untrusted with a second boot_aggregate, live or counted: a kernel was started without a reset", () => {
    expect(failed(appraise(learn(), [...CLEAN, CLEAN[0]!]))[0]).toMatchObject({ name: "boot_aggregate" })
    const counted = [{ ...CLEAN[0]!, count: 2 }, ...CLEAN.slice(1)]
    expect(appraise(learn(), counted).verdict).toBe("untrusted")
  })

  test("is untrusted when boot_aggregate is not the digest of the quoted pcrs 0-9", () => {
    const pcrs = OVMF_BOOT.pcrs.with(1, new Uint8Array(32))
    const [first] = failed(appraise(learn({ pcrs: [] }), CLEAN, quoteWith(pcrs)))
    expect(first).toMatchObject({
      name: "boot_aggregate",
      expected: `sha256:${toHex(sha256(...pcrs.slice(0, 10)))}`,
    })
  })

  test("is untrusted with another kernel under ovmf, naming the pcr", () => {
    const table = { ...learn(), pcrs: new Map([[4, new Set(["ab".repeat(32)])]]) }
    const [first] = failed(appraise(table, CLEAN))
    const seen = toHex(OVMF_BOOT.pcrs[4]!)
    expect(first).toMatchObject({ name: "pcr", subject: "pcr 4", expected: "ab".repeat(32), seen })
    expect(first!.approve).toBe(`mvm measure approve web pcr:4 --digest ${seen}`)
  })

  test("is untrusted when a pcr of the table is never quoted", () => {
    const table = { ...learn(), pcrs: new Map([[15, new Set(["ab".repeat(32)])]]) }
    expect(failed(appraise(table, CLEAN))[0]).toMatchObject({ subject: "pcr 15", seen: "not quoted" })
  })

  test("is untrusted when the log is an agent's and the table a kernel's", () => {
    const agent = new Appraiser({ table: learn(), vm: "web", kind: "agent" })
    expect(failed(agent.appraise(QUOTE, CLEAN)).map((check) => check.name)).toEqual(["kind"])
  })
})

describe("a violation", () => {
  test("makes the vm untrusted whatever its path, which no pcr covers", () => {
    const [first] = failed(appraise({ ...learn(), exclude: ["**"] }, SEEN))
    expect(first).toMatchObject({ name: "violation", subject: "/lib/x86_64-linux-gnu/libc.so.6" })
  })

  test("is only reported where the table says so", () => {
    const appraisal = appraise({ ...learn(), violations: "warn" }, SEEN)
    expect(appraisal.verdict).toBe("trusted")
    expect(appraisal.checks[0]).toMatchObject({ name: "violation", ok: false, severity: "warning" })
  })
})

describe("no reference table", () => {
  test("is a verdict of its own, and names the command that makes one", () => {
    const appraisal = appraise(undefined, CLEAN)
    expect(appraisal.verdict).toBe("no_reference")
    expect(appraisal.checks[0]!.approve).toBe("mvm measure learn web")
  })
})

describe("an appraiser that starts again", () => {
  test("comes to the verdict that one new appraiser would", () => {
    const appraiser = new Appraiser({ table: learn(), vm: "web", kind: "kernel" })
    expect(appraiser.appraise(QUOTE, [program("/x")]).verdict).toBe("untrusted")
    expect(appraiser.restart(QUOTE, CLEAN)).toEqual(appraise(learn(), CLEAN))
  })
})
