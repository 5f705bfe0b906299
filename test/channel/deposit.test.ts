/** @module test/channel/deposit */

import { describe, expect, test } from "bun:test"
import { depositHandshake, depositMessage, type DepositClaim } from "../../src/channel/deposit.ts"
import {
  encodeStatement,
  MAX_STATEMENT_BYTES,
  parseStatement,
  type DepositStatement,
} from "../../src/channel/deposit-statement.ts"
import { Opener } from "../../src/channel/opener.ts"
import { HEAD_BYTES, HEAD_WORDS, KIND } from "../../src/channel/record.ts"
import { KEPT_PAYLOAD_BYTES, RecordReader, RecordWriter } from "../../src/channel/record-bytes.ts"
import { Sealer } from "../../src/channel/sealer.ts"
import { concat, equalBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { p256Ecdh, p256Generate, random } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { openDepositKey, sealDepositKey } from "../../src/tcb/deposit-key.ts"
import { seeded } from "../ring/fresh-region.ts"

const bytes = (lengthBytes: number, value: number): Uint8Array => new Uint8Array(lengthBytes).fill(value)

const CLAIM: DepositClaim = {
  depositId: bytes(16, 1),
  laddress: bytes(16, 2),
  targetUuid: bytes(16, 3),
  service: "nightly",
  lengthBytes: 1000,
  storedBytes: 1100,
  records: 3,
  hash: bytes(32, 4),
  sealedKey: bytes(100, 5),
  nonce: bytes(32, 6),
  epoch: bytes(16, 7),
  program: { path: "/usr/bin/mvm", digest: bytes(32, 8), uid: 0 },
}

const STATEMENT: DepositStatement = {
  depositId: bytes(16, 1),
  timeMs: 1_700_000_000_123,
  expiresMs: 1_700_000_900_123,
  source: {
    uuid: bytes(16, 2),
    name: "alpha",
    identityKey: bytes(65, 3),
    verdict: "trusted",
    bootId: bytes(16, 4),
    kind: "kernel",
    program: { path: "/opt/größe", digest: bytes(32, 5) },
  },
  targetUuid: bytes(16, 6),
  targetName: "beta",
  service: "nightly",
  rule: "policy.toml:3",
  lengthBytes: 1000,
  storedBytes: 1100,
  records: 3,
  hash: bytes(32, 7),
  nonce: bytes(32, 8),
  epoch: bytes(16, 9),
  programUid: 1000,
  sourceSignature: bytes(64, 10),
  mvmMeasurement: bytes(32, 11),
}

test("what a depositor signs differs with every part of it", () => {
  const variants: DepositClaim[] = [
    CLAIM,
    { ...CLAIM, depositId: bytes(16, 9) },
    { ...CLAIM, laddress: bytes(16, 9) },
    { ...CLAIM, targetUuid: bytes(16, 9) },
    { ...CLAIM, service: "daily" },
    { ...CLAIM, lengthBytes: 1001 },
    { ...CLAIM, storedBytes: 1101 },
    { ...CLAIM, records: 4 },
    { ...CLAIM, hash: bytes(32, 9) },
    { ...CLAIM, sealedKey: bytes(101, 5) },
    { ...CLAIM, nonce: bytes(32, 9) },
    { ...CLAIM, epoch: bytes(16, 9) },
    { ...CLAIM, program: { ...CLAIM.program, path: "/usr/bin/mvn" } },
    { ...CLAIM, program: { ...CLAIM.program, digest: bytes(32, 9) } },
    { ...CLAIM, program: { ...CLAIM.program, uid: 1 } },
  ]
  expect(new Set(variants.map((claim) => toHex(depositMessage(claim)))).size).toBe(variants.length)
  const places = variants.slice(0, 5).map((claim) => toHex(depositHandshake(claim)))
  expect(new Set(places).size).toBe(places.length)
  expect(depositHandshake(CLAIM).length).toBe(64)
})

describe("a statement", () => {
  test("reads back as it was", () => {
    expect(parseStatement(encodeStatement(STATEMENT))).toEqual(STATEMENT)
  })

  test("is refused with anything cut off, added or changed to what no encoder makes", () => {
    const whole = encodeStatement(STATEMENT)
    for (let length = 0; length < whole.length; length += 1) {
      expect(() => parseStatement(whole.subarray(0, length))).toThrow(MvmError)
    }
    expect(() => parseStatement(concat(whole, bytes(1, 0)))).toThrow("STATEMENT.end")
    expect(() => parseStatement(bytes(MAX_STATEMENT_BYTES + 1, 0))).toThrow("STATEMENT.length")
    for (const change of [
      { service: "a\u001bb" },
      { targetName: "x".repeat(65) },
      { rule: "\u0007" },
      { hash: bytes(31, 0) },
      { sourceSignature: bytes(63, 0) },
      { source: { ...STATEMENT.source, kind: "other" as never } },
    ]) {
      expect(() => encodeStatement({ ...STATEMENT, ...change })).toThrow(MvmError)
    }
  })

  test("answers random changes with a statement or a protocol error", () => {
    const next = seeded(3)
    const whole = encodeStatement(STATEMENT)
    for (let round = 0; round < 3000; round += 1) {
      const changed = whole.slice()
      for (let count = 0; count <= next(3); count += 1) changed[next(changed.length)] = next(256)
      try {
        const parsed = parseStatement(changed)
        expect(encodeStatement(parsed)).toEqual(changed)
      } catch (error) {
        expect((error as MvmError).code).toBe("protocol")
      }
    }
  })
})

describe("records one behind the other", () => {
  const key = random(32)

  function sealed(pieces: readonly Uint8Array[]): Uint8Array {
    const writer = new RecordWriter()
    const sealer = new Sealer(key, writer)
    sealer.trySeal(KIND.HANDSHAKE, depositHandshake(CLAIM))
    for (const piece of pieces) sealer.trySeal(KIND.DATA, piece)
    sealer.trySeal(KIND.EOF, bytes(0, 0))
    return writer.take()
  }

  function opened(stored: Uint8Array, chunk: number): { content: Uint8Array; ended: boolean; rest: number } {
    const reader = new RecordReader()
    const opener = new Opener({
      key,
      source: reader,
      verifyHandshake: (binding) => equalBytes(binding, depositHandshake(CLAIM)),
    })
    const content: Uint8Array[] = []
    const buffer = new Uint8Array(chunk)
    for (let at = 0; at < stored.length; at += chunk) {
      // A buffer that is used again for the next chunk.
      buffer.set(stored.subarray(at, at + chunk))
      reader.push(buffer.subarray(0, Math.min(chunk, stored.length - at)))
      for (let record = opener.tryOpen(); record; record = opener.tryOpen()) {
        if (record.kind === KIND.DATA) content.push(record.plaintext)
      }
    }
    return { content: concat(...content), ended: opener.ended, rest: reader.restBytes }
  }

  test.each([1, 23, 24, 25, 1000, 70_000, 1 << 20])("open from chunks of %d bytes", (chunk) => {
    const pieces = [bytes(0, 0), random(1), random(5000), random(chunk < 100 ? 100 : KEPT_PAYLOAD_BYTES)]
    const { content, ended, rest } = opened(sealed(pieces), chunk)
    expect(content.length).toBe(concat(...pieces).length)
    expect(toHex(content)).toBe(toHex(concat(...pieces)))
    expect([ended, rest]).toEqual([true, 0])
  })

  test("do not open when any bit of them is another, or one is missing", () => {
    const stored = sealed([random(50), random(60)])
    for (let at = 0; at < stored.length; at += 1) {
      const changed = stored.slice()
      changed[at] = (changed[at] ?? 0) ^ 1
      let result: ReturnType<typeof opened> | undefined
      try {
        result = opened(changed, 4096)
      } catch (error) {
        expect(error).toBeInstanceOf(MvmError)
      }
      expect(result?.ended ?? false).toBe(false)
    }
    const first = HEAD_BYTES + 64
    const without = concat(stored.subarray(0, first), stored.subarray(first + HEAD_BYTES + 50))
    expect(() => opened(without, 4096)).toThrow("not authentic")
    expect(opened(stored.subarray(0, stored.length - HEAD_BYTES), 4096).ended).toBe(false)
  })

  test("of a length that none has are refused before they are waited for", () => {
    const reader = new RecordReader()
    const head = new Uint8Array(HEAD_BYTES)
    new DataView(head.buffer).setUint32(0, KEPT_PAYLOAD_BYTES + 1, true)
    reader.push(head)
    expect(() => reader.next(new Uint32Array(HEAD_WORDS))).toThrow("a payload of")
  })
})

describe("the key of a deposit", () => {
  const pair = p256Generate()
  const recipient = {
    zgen: async (point: Uint8Array) => p256Ecdh(pair.privateKey, point),
    recipientPublic65: pair.publicKey,
  }
  const context = { depositId: bytes(16, 1), targetUuid: bytes(16, 2), service: "s" }
  const secret = { key: bytes(32, 3), laddress: bytes(16, 4) }

  test("opens with the target's key for exactly this deposit", async () => {
    const sealedKey = await sealDepositKey(pair.publicKey, context, secret)
    expect(await openDepositKey(recipient, context, sealedKey)).toEqual(secret)
    for (const other of [
      { ...context, depositId: bytes(16, 9) },
      { ...context, targetUuid: bytes(16, 9) },
      { ...context, service: "t" },
    ]) {
      expect(openDepositKey(recipient, other, sealedKey)).rejects.toMatchObject({ code: "integrity" })
    }
    const stranger = p256Generate()
    const another = {
      zgen: async (point: Uint8Array) => p256Ecdh(stranger.privateKey, point),
      recipientPublic65: stranger.publicKey,
    }
    expect(openDepositKey(another, context, sealedKey)).rejects.toMatchObject({ code: "integrity" })
    expect(openDepositKey(recipient, context, utf8("short"))).rejects.toMatchObject({ code: "integrity" })
  })

  test("of another length is none", async () => {
    const short = await sealDepositKey(pair.publicKey, context, { ...secret, key: bytes(16, 3) })
    expect(openDepositKey(recipient, context, short)).rejects.toMatchObject({ code: "protocol" })
  })
})
