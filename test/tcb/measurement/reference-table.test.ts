import { describe, expect, test } from "bun:test"
import {
  allowFile,
  allowPcr,
  diffReference,
  emptyReference,
  learnReference,
  mergeReferences,
  type Measured,
} from "../../../src/tcb/measurement/reference-table.ts"
import { codeOf } from "./measured-boots.ts"

const A = "aa".repeat(32)
const B = "bb".repeat(32)

function seen(path: string, hex = A, more: Partial<Measured> = {}): Measured {
  return { path, fileDigest: { algorithm: "sha256", hex }, violation: false, ...more }
}

const KERNEL = { measurementKind: "kernel", required: [], pcrs: new Map() } as const

describe("learning from a boot", () => {
  test("takes every pair, the pcrs given, and what is required", () => {
    const { table, warnings } = learnReference(
      [seen("boot_aggregate", B), seen("/init"), seen("/policy", B)],
      {
        measurementKind: "kernel",
        required: ["/policy"],
        pcrs: new Map([[4, new Uint8Array(32)]]),
      },
    )
    expect(warnings).toEqual([])
    expect([...table.files]).toEqual([
      ["/init", new Set([A])],
      ["/policy", new Set([B])],
    ])
    expect([...table.required]).toEqual(["/policy"])
    expect([...table.pcrs]).toEqual([[4, new Set(["00".repeat(32)])]])
    expect(table.violations).toBe("deny")
  })

  test("learns no violation and no weak digest, and says so", () => {
    const weak = { fileDigest: { algorithm: "sha1", hex: "00" } }
    const { table, warnings } = learnReference(
      [seen("/a", A, { violation: true }), seen("/b", A, weak)],
      KERNEL,
    )
    expect(table.files.size).toBe(0)
    expect(warnings).toHaveLength(2)
  })

  test("warns of interpreters, debuggers and a program that changed during the boot", () => {
    const { warnings } = learnReference(
      [
        seen("/bin/bash"),
        seen("/usr/bin/python3.11"),
        seen("/usr/bin/gdb"),
        seen("/bin/ls"),
        seen("/x"),
        seen("/x", B),
      ],
      KERNEL,
    )
    expect(warnings.map((warning) => warning.split(":")[0])).toEqual([
      "/bin/bash",
      "/usr/bin/python3.11",
      "/usr/bin/gdb",
      "/x",
    ])
  })

  test("fails when something required was not measured", () => {
    expect(codeOf(() => learnReference([seen("/a")], { ...KERNEL, required: ["/policy"] }))).toBe("not_found")
  })
})

describe("a table", () => {
  const table = allowFile({ ...emptyReference("kernel"), exclude: ["/tmp/**"] }, "/a", A)

  test("is not changed by allowing more", () => {
    const more = allowPcr(allowFile(table, "/a", B), 4, A)
    expect(more.files.get("/a")).toEqual(new Set([A, B]))
    expect(more.pcrs.get(4)).toEqual(new Set([A]))
    expect(table.files.get("/a")).toEqual(new Set([A]))
  })

  test("and another allow what either does, and demand what both do", () => {
    const group = {
      ...allowPcr(allowFile(emptyReference("kernel"), "/b", B), 4, B),
      required: new Set(["/b"]),
    }
    const both = mergeReferences({ ...table, violations: "warn" }, group)
    expect([...both.files.keys()]).toEqual(["/a", "/b"])
    expect(both).toMatchObject({ required: new Set(["/b"]), exclude: ["/tmp/**"], violations: "deny" })
    expect(codeOf(() => mergeReferences(table, emptyReference("agent")))).toBe("config")
  })

  test("differs from a boot by what was not allowed, not seen, missing and in violation", () => {
    const diff = diffReference({ ...allowFile(table, "/gone", B), required: new Set(["/gone"]) }, [
      seen("boot_aggregate", B),
      seen("/a"),
      seen("/a", B),
      seen("/new", B),
      seen("/tmp/x"),
      seen("/v", A, { violation: true }),
    ])
    expect(diff.notAllowed.map(({ path, allowed }) => [path, allowed])).toEqual([
      ["/a", [A]],
      ["/new", []],
    ])
    expect(diff).toMatchObject({
      violations: ["/v"],
      missing: ["/gone"],
      unused: [{ path: "/gone", digest: B }],
    })
  })
})
