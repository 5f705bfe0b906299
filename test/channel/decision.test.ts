import { expect, test } from "bun:test"
import { encodeDecision, parseDecision, type Decision } from "../../src/channel/decision.ts"
import { concat, toHex, utf8 } from "../../src/lib/bytes.ts"
import { sha256 } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { seeded } from "../ring/fresh-region.ts"

const bytes = (lengthBytes: number, value: number): Uint8Array => new Uint8Array(lengthBytes).fill(value)

const DECISION: Decision = {
  channelId: bytes(16, 1),
  timeMs: 1_700_000_000_123,
  asker: {
    uuid: bytes(16, 2),
    name: "alpha",
    identityKey: bytes(65, 3),
    verdict: "trusted",
    bootId: bytes(16, 4),
    kind: "kernel",
    program: { path: "/usr/bin/mvm", digest: bytes(32, 5) },
  },
  answerer: {
    uuid: bytes(16, 6),
    name: "beta",
    identityKey: bytes(65, 7),
    verdict: "trusted",
    bootId: bytes(16, 8),
    kind: "agent",
    program: { path: "/opt/größe", digest: bytes(32, 9) },
  },
  role: "send",
  service: "files",
  rule: "rule 3",
  transport: "memory",
  isolation: "arena",
  ringBytes: 1 << 20,
  digestMode: "chain",
  maxBytes: 1 << 30,
  mvmMeasurement: bytes(32, 10),
}

const RELAYED = { transport: "relay", isolation: undefined, ringBytes: 0 } as const

/** An independent encoder of the format: label, count, length-prefixed fields, all written by hand. */
function byHand(fields: readonly (string | Uint8Array | bigint)[]): Uint8Array {
  const u32 = (value: number) => new Uint8Array([value >>> 24, value >>> 16, value >>> 8, value])
  const parts = fields.map((field) => {
    if (typeof field === "string") return utf8(field)
    if (field instanceof Uint8Array) return field
    return Uint8Array.fromHex(field.toString(16).padStart(16, "0"))
  })
  const label = utf8("mvm decision v1")
  return concat(u32(label.length), label, u32(fields.length), ...parts.flatMap((p) => [u32(p.length), p]))
}

function refusal(encoded: Uint8Array): string {
  try {
    parseDecision(encoded)
  } catch (error) {
    return error instanceof MvmError ? `${error.code} ${error.message}` : `not ours: ${error}`
  }
  return "accepted"
}

test("the encoding is the documented one", () => {
  const { asker: a, answerer: b } = DECISION
  const end = (e: Decision["asker"]) => [
    e.uuid,
    e.name,
    e.identityKey,
    e.verdict,
    e.bootId,
    e.kind,
    e.program.path,
    e.program.digest,
  ]
  const expected = byHand([
    DECISION.channelId,
    1_700_000_000_123n,
    ...end(a),
    ...end(b),
    "send",
    "files",
    "rule 3",
    "memory",
    "arena",
    1n << 20n,
    "chain",
    1n << 30n,
    DECISION.mvmMeasurement,
  ])
  expect(toHex(encodeDecision(DECISION))).toBe(toHex(expected))
})

test("a decision comes back as it was encoded, in every variant", () => {
  for (const role of ["send", "receive", "duplex"] as const) {
    for (const isolation of ["arena", "dedicated"] as const) {
      for (const digestMode of ["chain", "sha256"] as const) {
        for (const maxBytes of [undefined, 1, Number.MAX_SAFE_INTEGER]) {
          const decision = { ...DECISION, role, isolation, digestMode, maxBytes }
          expect(parseDecision(encodeDecision(decision))).toEqual(decision)
          const relayed = { ...decision, ...RELAYED }
          expect(parseDecision(encodeDecision(relayed))).toEqual(relayed)
        }
      }
    }
  }
})

test("every truncation and anything trailing is refused, naming a field", () => {
  const encoded = encodeDecision(DECISION)
  for (let length = 0; length < encoded.length; length++) {
    expect(refusal(encoded.subarray(0, length))).toMatch(/^protocol DECISION\.\w/)
  }
  expect(refusal(concat(encoded, bytes(1, 0)))).toMatch(/^protocol DECISION\.end: 1 trailing/)
  expect(refusal(concat(encoded, bytes(9000, 0)))).toMatch(/^protocol DECISION\.length/)
})

test("unknown words, wrong lengths, control characters and broken text are refused by name", () => {
  const wrong: [Partial<Decision>, string][] = [
    [{ channelId: bytes(15, 1) }, "channelId"],
    [{ role: "both" as never }, "role"],
    [{ transport: "tcp" as never }, "transport"],
    [{ isolation: "" as never }, "isolation"],
    [{ isolation: undefined }, "isolation"],
    [{ ...RELAYED, isolation: "arena" }, "isolation"],
    [{ ...RELAYED, ringBytes: 4096 }, "ringBytes"],
    [{ digestMode: "sha1" as never }, "digestMode"],
    [{ ringBytes: 12288 }, "ringBytes"],
    [{ service: "a\u001b[2J" }, "service"],
    [{ service: "x".repeat(65) }, "service"],
    [{ mvmMeasurement: bytes(0, 0) }, "mvmMeasurement"],
    [{ asker: { ...DECISION.asker, identityKey: bytes(64, 4) } }, "asker.identityKey"],
    [{ answerer: { ...DECISION.answerer, verdict: "maybe" as never } }, "answerer.verdict"],
    [
      { answerer: { ...DECISION.answerer, program: { path: "\n", digest: bytes(32, 0) } } },
      "answerer.programPath",
    ],
  ]
  for (const [change, field] of wrong) {
    expect(() => encodeDecision({ ...DECISION, ...change })).toThrow(`DECISION.${field}: `)
  }
  const text = encodeDecision(DECISION)
  const at = Buffer.from(text).indexOf("files")
  text[at] = 0xff
  expect(refusal(text)).toMatch(/service: not UTF-8/)
})

test("seeded mutations never crash and never pass for the original", () => {
  const original = encodeDecision(DECISION)
  for (let seed = 1; seed <= 2000; seed++) {
    const pick = seeded(seed)
    const mutated = original.slice()
    for (let change = 0; change <= pick(3); change++) mutated[pick(mutated.length)] = pick(256)
    expect(refusal(mutated)).toMatch(/^(protocol DECISION\.|accepted)/)
    if (refusal(mutated) === "accepted") {
      expect(toHex(encodeDecision(parseDecision(mutated)))).toBe(toHex(mutated))
    }
  }
})

test("two decisions that differ anywhere have different bytes", () => {
  const digests = new Set(
    [
      DECISION,
      { ...DECISION, timeMs: DECISION.timeMs + 1 },
      { ...DECISION, maxBytes: undefined },
      { ...DECISION, service: "file", rule: "srule 3" },
      { ...DECISION, asker: DECISION.answerer, answerer: DECISION.asker },
    ].map((decision) => toHex(sha256(encodeDecision(decision)))),
  )
  expect(digests.size).toBe(5)
})
