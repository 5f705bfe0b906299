/**
 * @module test/mvm/deposits/deposits
 *
 * Depositors and collectors whose every word the test chooses, against a real MVM's middle.
 */

import { describe, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { parseStatement } from "../../../src/channel/deposit-statement.ts"
import type { receiptMessage } from "../../../src/channel/transcript.ts"
import { toHex } from "../../../src/lib/bytes.ts"
import { p256Ecdh, p256Verify, random, sha256 } from "../../../src/lib/crypto.ts"
import { openDepositKey } from "../../../src/tcb/deposit-key.ts"
import type { Fields } from "../../../src/wire/link.ts"
import { PROGRAM, refusal, until, type ScriptedMember } from "../scripted-member.ts"
import type { ScriptedMvm } from "../scripted.ts"
import {
  begin,
  collect,
  CONTENT,
  finish,
  KEY,
  leave,
  list,
  mvmWith,
  POLICY,
  put,
  receipt,
  WAIT,
  type Claim,
} from "./scripted-deposits.ts"

function files(mvm: ScriptedMvm): string[] {
  return readdirSync(join(mvm.folder, "deposits"))
}

function nothingKept(mvm: ScriptedMvm): void {
  expect(mvm.context.deposits.table.all()).toEqual([])
  expect(files(mvm)).toEqual([])
}

describe("a deposit", () => {
  test("is kept with what the MVM found, and opens for its target alone", async () => {
    const mvm = await mvmWith()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { depositId } = await leave(a, "b")
    const { waiting, more } = (await list(b)).fields
    expect([waiting.length, more]).toEqual([1, 0])
    expect(waiting[0]).toMatchObject({ source: "a", service: "pipe", lengthBytes: 4900, taken: "never" })
    expect((await list(a)).fields.waiting).toEqual([])
    const collected = await collect(b, depositId)
    const statement = parseStatement(collected.statement)
    expect(
      p256Verify(mvm.context.identity.publicKey, collected.statement, collected.statementSignature),
    ).toBe(true)
    expect(statement).toMatchObject({ service: "pipe", lengthBytes: 4900, records: 3, targetName: "b" })
    expect(statement.source).toMatchObject({ name: "a", verdict: "trusted", kind: "agent" })
    expect(statement.hash).toEqual(sha256(CONTENT))
    const { privateKey, publicKey } = b.keys.sealing
    const recipient = {
      zgen: async (point: Uint8Array) => p256Ecdh(privateKey, point),
      recipientPublic65: publicKey,
    }
    const place = { depositId, targetUuid: statement.targetUuid, service: "pipe" }
    const secret = await openDepositKey(recipient, place, collected.sealedKey)
    expect(toHex(secret.key)).toBe(toHex(KEY))
    const read = await b.client.link.request(
      "DEPOSIT_DATA",
      { depositId, offset: 1000, lengthBytes: 48 * 1024 },
      "DEPOSIT_BYTES",
      WAIT,
    )
    expect(toHex(read.fields.part ?? new Uint8Array(0))).toBe(toHex(CONTENT.subarray(1000)))
    expect((await list(b)).fields.waiting[0]?.taken).toBe("here")
    expect((await list(b, random(16))).fields.waiting[0]?.taken).toBe("elsewhere")
    await receipt(b, depositId)
    nothingKept(mvm)
    expect(mvm.audited("deposit_receipt")).toMatchObject([
      { deposit: toHex(depositId), source: "a", target: "b" },
    ])
  })

  test("passes through shared memory where both have it, and the region is free afterwards", async () => {
    const mvm = await mvmWith({ arenaBytes: 4 << 20 })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const free = mvm.context.arena.freeBytes
    const offered = await begin(a, "b", { memory: true })
    const grant = await a.openGrant(offered.depositId, sha256(offered.nonce), offered.sealed)
    expect(grant.lengthBytes).toBeGreaterThan(CONTENT.length)
    mvm.context.arena.write(grant, 0, CONTENT)
    await put(a, { depositId: offered.depositId, part: undefined })
    // What is there later is nothing to the MVM, who has its copy.
    mvm.context.arena.write(grant, 0, random(100))
    await finish(a, offered)
    expect(mvm.context.arena.freeBytes).toBe(free)
    const [row] = mvm.context.deposits.table.all()
    expect(row?.bytes).toBe(CONTENT.length)
    expect(files(mvm)).toEqual([row?.key ?? ""])
    await collect(b, offered.depositId)
  })

  test("is dropped with the link of its depositor, and so is a claim from an earlier one", async () => {
    const mvm = await mvmWith()
    const [a] = [await mvm.member("a"), await mvm.member("b")]
    const offered = await begin(a, "b")
    await put(a, { depositId: offered.depositId })
    expect(files(mvm).length).toBe(1)
    await a.relink()
    await until(() => files(mvm).length === 0)
    expect((await refusal(put(a, { depositId: offered.depositId }))).code).toBe("protocol")
    nothingKept(mvm)
  })

  test("whose depositor's link began anew holds its region until that depositor, and nobody else, says CLOSE", async () => {
    const mvm = await mvmWith()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { arena } = mvm.context
    const { depositId } = await begin(a, "b", { memory: true })
    const heldBytes = arena.sizeBytes - arena.freeBytes
    expect(heldBytes).toBeGreaterThan(0)
    await a.relink()
    for (const member of [b, a]) {
      expect(arena.sizeBytes - arena.freeBytes).toBe(heldBytes)
      member.send("CLOSE", { channelId: depositId })
      await member.settled()
    }
    expect(arena.freeBytes).toBe(arena.sizeBytes)
  })

  test("that its depositor asks about again is answered as kept, and only with the same hash", async () => {
    const mvm = await mvmWith()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const offered = await begin(a, "b")
    await put(a, { depositId: offered.depositId })
    await finish(a, offered)
    await a.relink()
    const empty = { lengthBytes: 0, storedBytes: 0, records: 0, sealedKey: new Uint8Array(0) }
    const fields = {
      depositId: offered.depositId,
      ...empty,
      signature: new Uint8Array(64),
      quote: { attest: new Uint8Array(0), signature: new Uint8Array(64), pcrs: [] },
    }
    const again = (member: ScriptedMember, hash: Uint8Array) =>
      member.client.link.request("DEPOSIT_FINISH", { ...fields, hash }, "DONE", WAIT)
    await again(a, sha256(CONTENT))
    expect((await refusal(again(a, random(32)))).code).toBe("protocol")
    expect((await refusal(again(b, sha256(CONTENT)))).code).toBe("protocol")
    expect(mvm.context.deposits.table.all().length).toBe(1)
  })
})

describe("a depositor's claim is refused, and nothing kept, when", () => {
  test.each<[string, string, (offered: Fields<"DEPOSITING">) => Claim]>([
    ["its hash is not of what was stored", "integrity", () => ({ sent: { hash: random(32) }, signed: {} })],
    [
      "its length is not what was stored",
      "integrity",
      () => ({ sent: { storedBytes: 4999 }, signed: { storedBytes: 4999 } }),
    ],
    [
      "it holds more than was stored",
      "protocol",
      () => ({ sent: { lengthBytes: 5001 }, signed: { lengthBytes: 5001 } }),
    ],
    ["it is signed for another target", "signature", () => ({ signed: { targetUuid: random(16) } })],
    ["it is signed for another service", "signature", () => ({ signed: { service: "other" } })],
    ["it is signed for another pseudo-address", "signature", () => ({ signed: { laddress: random(16) } })],
    ["it is signed for another nonce", "signature", () => ({ signed: { nonce: random(32) } })],
    ["it is signed for another life of the link", "signature", () => ({ signed: { epoch: random(16) } })],
    ["it is signed for another key", "signature", () => ({ signed: { sealedKey: random(100) } })],
    [
      "it is signed for another program",
      "signature",
      () => ({ signed: { program: { ...PROGRAM, uid: 7 } } }),
    ],
  ])("%s", async (_, code, claim) => {
    const mvm = await mvmWith()
    const [a] = [await mvm.member("a"), await mvm.member("b")]
    const offered = await begin(a, "b")
    await put(a, { depositId: offered.depositId })
    expect((await refusal(finish(a, offered, claim(offered)))).code).toBe(code as never)
    nothingKept(mvm)
    // It cannot be mended: the claim was the last word.
    expect((await refusal(finish(a, offered))).code).toBe("protocol")
    nothingKept(mvm)
  })

  test("another member signs it, or proves itself in its place", async () => {
    const mvm = await mvmWith()
    const [a, b, c] = [await mvm.member("a"), await mvm.member("b"), await mvm.member("c")]
    for (const claim of [{ signer: c }, { quoter: c }]) {
      const offered = await begin(a, b.name)
      await put(a, { depositId: offered.depositId })
      expect((await refusal(finish(a, offered, claim))).status).toBeGreaterThanOrEqual(4)
      nothingKept(mvm)
    }
  })

  test("its software is not trusted", async () => {
    const mvm = await mvmWith()
    const [a] = [await mvm.member("a"), await mvm.member("b")]
    const offered = await begin(a, "b")
    await put(a, { depositId: offered.depositId })
    mvm.context.registry.reference.clearReference(a.member.record.uuid)
    expect((await refusal(finish(a, offered))).code).toBe("no_reference")
    nothingKept(mvm)
  })

  test("somebody else makes it", async () => {
    const mvm = await mvmWith()
    const [a, b, c] = [await mvm.member("a"), await mvm.member("b"), await mvm.member("c")]
    const offered = await begin(a, b.name)
    expect((await refusal(put(c, { depositId: offered.depositId }))).code).toBe("protocol")
    await put(a, { depositId: offered.depositId })
    const { depositId } = offered
    const quote = c.quote({ purpose: "request", nonce: offered.nonce, binding: random(32) })
    const stolen = { depositId, lengthBytes: 1, storedBytes: 5000, records: 1, hash: sha256(CONTENT) }
    const fields = { ...stolen, sealedKey: random(90), signature: c.sign(random(10)), quote }
    expect((await refusal(c.client.link.request("DEPOSIT_FINISH", fields, "DONE", WAIT))).code).toBe(
      "protocol",
    )
    // The honest one is none the worse.
    await finish(a, offered)
  })
})

describe("parts of a deposit are refused", () => {
  test.each<[string, Partial<Fields<"DEPOSIT_DATA">>]>([
    ["out of order", { offset: 1 }],
    ["of no length", { lengthBytes: 0, part: new Uint8Array(0) }],
    ["of another length than they say", { lengthBytes: 10 }],
    ["in a region that there is not", { part: undefined, lengthBytes: 10 }],
  ])("%s", async (_, change) => {
    const mvm = await mvmWith()
    const [a] = [await mvm.member("a"), await mvm.member("b")]
    const { depositId } = await begin(a, "b")
    expect((await refusal(put(a, { depositId, ...change }))).code).toBe("protocol")
    nothingKept(mvm)
  })

  test("beyond the region, the quota, and what a rule allows", async () => {
    const mvm = await mvmWith({
      arenaBytes: 4 << 20,
      deposits: { vmBytes: 6000, totalBytes: 100_000, maxLifetimeMs: 1000 },
    })
    const [a] = [await mvm.member("a"), await mvm.member("b")]
    const mapped = await begin(a, "b", { memory: true })
    const beyond = put(a, { depositId: mapped.depositId, part: undefined, lengthBytes: 2 ** 31 })
    expect((await refusal(beyond)).code).toBe("protocol")
    const first = await begin(a, "b")
    await put(a, { depositId: first.depositId })
    const second = await begin(a, "b")
    expect((await refusal(put(a, { depositId: second.depositId }))).message).toContain(
      "keeps at most 5.86 KiB",
    )
    await finish(a, first)
    expect(mvm.context.deposits.table.all().length).toBe(1)
  })
})

describe("a member", () => {
  test("has so many deposits under way, and the others have theirs", async () => {
    const mvm = await mvmWith()
    const [a, c] = [await mvm.member("a"), await mvm.member("c")]
    await mvm.member("b")
    for (let count = 0; count < 8; count += 1) await begin(a, "b")
    expect((await refusal(begin(a, "b"))).code).toBe("busy")
    await begin(c, "b")
    await a.relink()
    await begin(a, "b")
  })

  test("gets status 6 without a rule for deposits, and 4 while it is not trusted", async () => {
    const mvm = await mvmWith({ policy: POLICY.replace("deposit = true\n", "") })
    const [a] = [await mvm.member("a"), await mvm.member("b")]
    expect((await refusal(begin(a, "b"))).code).toBe("denied")
    expect(mvm.audited("refused")).toMatchObject([{ asker: "a", target: "b", code: "denied" }])
  })
})

describe("a collector", () => {
  test("that does not prove its software, or is not trusted, gets no key", async () => {
    const mvm = await mvmWith()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { depositId } = await leave(a, "b")
    mvm.context.registry.reference.clearReference(b.member.record.uuid)
    expect((await refusal(collect(b, depositId))).code).toBe("no_reference")
    expect(mvm.context.deposits.table.get(toHex(depositId))?.state).toBe("waiting")
    expect(
      (
        await refusal(
          b.client.link.request(
            "DEPOSIT_DATA",
            { depositId, offset: 0, lengthBytes: 1 },
            "DEPOSIT_BYTES",
            WAIT,
          ),
        )
      ).code,
    ).toBe("protocol")
  })

  test("gets only what is for it", async () => {
    const mvm = await mvmWith()
    const [a, b, c] = [await mvm.member("a"), await mvm.member("b"), await mvm.member("c")]
    const { depositId } = await leave(a, "b")
    for (const member of [a, c]) {
      expect((await refusal(collect(member, depositId))).code).toBe("unreachable")
      expect((await refusal(receipt(member, depositId))).code).toBe("protocol")
      const bytes = { depositId, offset: 0, lengthBytes: 1 }
      const read = member.client.link.request("DEPOSIT_DATA", bytes, "DEPOSIT_BYTES", WAIT)
      expect((await refusal(read)).code).toBe("protocol")
    }
    await collect(b, depositId)
  })

  test.each<[string, Partial<Parameters<typeof receiptMessage>[0]>]>([
    ["another length", { lengthBytes: 1 }],
    ["other records", { records: 4 }],
    ["another hash", { digest: random(32) }],
  ])("cannot receipt %s", async (_, change) => {
    const mvm = await mvmWith()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { depositId } = await leave(a, "b")
    await collect(b, depositId)
    expect((await refusal(receipt(b, depositId, change))).code).toBe("integrity")
    expect((await refusal(receipt(b, depositId, {}, a))).code).toBe("signature")
    expect(mvm.context.deposits.table.all().length).toBe(1)
    await receipt(b, depositId)
    nothingKept(mvm)
  })

  test("reads no part beyond the deposit, and none of no length", async () => {
    const mvm = await mvmWith()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { depositId } = await leave(a, "b")
    await collect(b, depositId)
    for (const part of [
      { offset: CONTENT.length + 1, lengthBytes: 1 },
      { offset: 0, lengthBytes: 0 },
      { offset: 0, lengthBytes: 48 * 1024 + 1 },
    ]) {
      const read = b.client.link.request("DEPOSIT_DATA", { depositId, ...part }, "DEPOSIT_BYTES", WAIT)
      expect((await refusal(read)).code).toBe("protocol")
    }
  })
})
