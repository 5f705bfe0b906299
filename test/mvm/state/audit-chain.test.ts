/** @module test/mvm/audit-chain */

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { createHash } from "node:crypto"
import { fromHex, toHex } from "../../../src/lib/bytes.ts"
import { p256Generate, p256Sign, random } from "../../../src/lib/crypto.ts"
import {
  type AuditSubject,
  canonicalBody,
  type ChainedRow,
  exportLine,
  GENESIS,
  headMessage,
  rowHash,
  verifyExport,
} from "../../../src/mvm/state/audit-chain.ts"
import { failure } from "../scratch-state.ts"

const key = p256Generate()

function chain(subjects: readonly AuditSubject[]): { rows: ChainedRow[]; lines: string[] } {
  let previous = GENESIS
  const rows: ChainedRow[] = []
  const lines = subjects.map((subject, index) => {
    const row = { sequence: index + 1, timeMs: 1000 + index, kind: "grant", body: canonicalBody(subject) }
    const hash = rowHash(previous, row)
    rows.push({ ...row, hash, signature: p256Sign(key.privateKey, headMessage(row.sequence, hash)) })
    const line = exportLine(rows.at(-1)!, previous)
    previous = hash
    return line
  })
  return { rows, lines }
}

const sample = chain(Array.from({ length: 6 }, (_, index) => ({ vm: `vm${index}`, bytes: index * 1000 })))

describe("a row's hash", () => {
  test("is SHA-256 of the labelled, length-prefixed fields, put together here by hand", () => {
    const u32 = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value])
    const field = (bytes: Uint8Array) => Buffer.concat([u32(bytes.length), bytes])
    const u64 = (value: bigint) => {
      const out = Buffer.alloc(8)
      out.writeBigUInt64BE(value)
      return out
    }
    const fields = [
      Buffer.alloc(32),
      u64(1n),
      u64(1000n),
      Buffer.from("grant"),
      Buffer.from('{"a":"é","b":1}'),
    ]
    const bytes = Buffer.concat([field(Buffer.from("mvm audit v1")), u32(5), ...fields.map(field)])
    const body = canonicalBody({ b: 1, a: "é" })
    const hash = rowHash(GENESIS, { sequence: 1, timeMs: 1000, kind: "grant", body })
    expect(toHex(hash)).toBe(createHash("sha256").update(bytes).digest("hex"))
  })
})

describe("a body", () => {
  test("has one text, whatever the order of its fields", () => {
    const one = { b: [1, { d: null, c: true }], a: "x", u: undefined, n: 5n, k: Uint8Array.of(1, 255) }
    const two = { k: Uint8Array.of(1, 255), n: "5", a: "x", b: [1, { c: true, d: null }] }
    expect(canonicalBody(one)).toBe('{"a":"x","b":[1,{"c":true,"d":null}],"k":"01ff","n":"5"}')
    expect(canonicalBody(two)).toBe(canonicalBody(one))
  })

  test("is stable when read back, for all of JSON", () => {
    const objects = fc.dictionary(fc.string(), fc.jsonValue())
    const property = fc.property(objects, (value) => {
      const body = canonicalBody(value as AuditSubject)
      expect(canonicalBody(JSON.parse(body) as AuditSubject)).toBe(body)
    })
    fc.assert(property)
  })

  test("is refused when JSON cannot hold it, or when it is too long", async () => {
    for (const value of [Number.NaN, Infinity, () => 1, Symbol("x")]) {
      expect((await failure(() => canonicalBody({ value } as unknown as AuditSubject))).code).toBe("config")
    }
    expect((await failure(() => canonicalBody({ a: "x".repeat(70_000) }))).code).toBe("too_large")
  })
})

describe("an export", () => {
  test("verifies whole, from any row on, and with a known head", () => {
    const { lines, rows } = sample
    const head = rows[5]!
    expect(verifyExport(lines, key.publicKey, head)).toEqual({
      ok: true,
      rows: 6,
      head: { sequence: 6, hash: head.hash },
    })
    expect(verifyExport(lines.slice(2), key.publicKey).rows).toBe(4)
    expect(verifyExport([...lines, ""], key.publicKey).ok).toBe(true)
    expect(verifyExport([], key.publicKey).ok).toBe(true)
  })

  test("fails when its tail or all of it is missing and the head is known", () => {
    const { lines, rows } = sample
    expect(verifyExport(lines.slice(0, 4), key.publicKey).ok).toBe(true)
    const cut = verifyExport(lines.slice(0, 4), key.publicKey, rows[5]!)
    expect([cut.ok, cut.firstBad?.sequence]).toEqual([false, 5])
    expect(verifyExport([], key.publicKey, rows[0]!).ok).toBe(false)
    const other = verifyExport(lines, key.publicKey, { sequence: 3, hash: random(32) })
    expect([other.ok, other.firstBad?.sequence]).toEqual([false, 3])
  })

  test("fails at the row that was removed, moved or doubled", () => {
    const { lines } = sample
    const orders: [number[], number][] = [
      [[0, 1, 3, 4, 5], 3],
      [[0, 2, 1, 3, 4, 5], 2],
      [[0, 1, 1, 2], 3],
      [[5, 4], 7],
    ]
    for (const [order, bad] of orders) {
      const result = verifyExport(
        order.map((index) => lines[index]!),
        key.publicKey,
      )
      expect([result.ok, result.firstBad?.sequence]).toEqual([false, bad])
    }
  })

  test("fails when any field of any row is another", () => {
    const changes: Record<string, (value: unknown) => unknown> = {
      sequence: (value) => (value as number) + 1,
      timeMs: (value) => (value as number) + 1,
      kind: () => "refused",
      body: (value) => ({ ...(value as object), vm: "evil" }),
      previous: (value) => toHex(fromHex(value as string).map((byte) => byte ^ 1)),
      hash: (value) => toHex(fromHex(value as string).map((byte) => byte ^ 1)),
      signature: (value) => toHex(fromHex(value as string).map((byte) => byte ^ 1)),
    }
    for (let index = 0; index < sample.lines.length; index++) {
      for (const [field, change] of Object.entries(changes)) {
        const lines = [...sample.lines]
        const row = JSON.parse(lines[index]!) as Record<string, unknown>
        lines[index] = JSON.stringify({ ...row, [field]: change(row[field]) })
        expect(verifyExport(lines, key.publicKey).ok).toBe(false)
      }
    }
  })

  test("fails when a row was hashed and signed anew with another key", () => {
    const forged = chain([{ vm: "evil" }])
    const stranger = p256Generate()
    expect(verifyExport(forged.lines, stranger.publicKey).firstBad).toEqual({
      sequence: 1,
      reason: "its signature is not the MVM's",
    })
    expect(verifyExport(sample.lines, stranger.publicKey).ok).toBe(false)
    expect(verifyExport(sample.lines, random(65)).ok).toBe(false)
  })

  test("fails, and never throws, on any other lines", () => {
    const line = sample.lines[0]!
    const row = JSON.parse(line) as Record<string, unknown>
    const bad = [
      "null",
      "[]",
      "{}",
      "{",
      '"x"',
      `${line}x`,
      JSON.stringify({ ...row, extra: 1 }),
      JSON.stringify({ ...row, sequence: 0 }),
      JSON.stringify({ ...row, sequence: -1 }),
      JSON.stringify({ ...row, sequence: "1" }),
      JSON.stringify({ ...row, timeMs: 2 ** 60 }),
      JSON.stringify({ ...row, hash: "00" }),
      JSON.stringify({ ...row, hash: null }),
      JSON.stringify({ ...row, body: [] }),
      line.replace('"bytes":0', `"bytes":${"[".repeat(50_000)}${"]".repeat(50_000)}`),
      line.replace('"bytes":0', '"bytes":1e999'),
    ]
    for (const text of bad) expect(verifyExport([text], key.publicKey).ok).toBe(false)
    const property = fc.property(fc.nat(line.length), fc.string({ maxLength: 3 }), (at, text) => {
      const changed = line.slice(0, at) + text + line.slice(at + 1)
      const result = verifyExport([changed], key.publicKey)
      // Spaces between tokens and the case of hex change nothing that is signed.
      if (result.ok) expect(changed.replaceAll(/\s/g, "").toLowerCase()).toBe(line.toLowerCase())
    })
    fc.assert(property, { numRuns: 300 })
  })
})
