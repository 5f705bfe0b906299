import { describe, expect, test } from "bun:test"
import { p256Generate, p256Sign, random } from "../../../src/lib/crypto.ts"
import { evidenceQualifyingData } from "../../../src/tcb/measurement/qualifying-data.ts"
import { QUOTED_PCRS, verifyQuote } from "../../../src/tcb/measurement/quote.ts"
import { parseQuote } from "../../../src/tpm/attest.ts"
import { BOOTS, OVMF_BOOT, SEABIOS_BOOT, codeOf, type MeasuredBoot } from "./measured-boots.ts"

function untrusted(boot: MeasuredBoot): { attest: Uint8Array; signature: Uint8Array; pcrs: Uint8Array[] } {
  return { ...boot.quote, pcrs: boot.pcrs }
}

/** `attest` changed and signed anew by a key that we hold, to get behind the first check. */
function resigned(attest: Uint8Array, pcrs = OVMF_BOOT.pcrs) {
  const { privateKey, publicKey } = p256Generate()
  return {
    quote: { attest, signature: p256Sign(privateKey, attest), pcrs },
    expected: { attestationKey: publicKey, qualifyingData: OVMF_BOOT.qualifyingData },
  }
}

function changed(at: number, value: number): Uint8Array {
  const attest = OVMF_BOOT.quote.attest.slice()
  attest[at] = value
  return attest
}

/** Offsets in the captured TPMS_ATTEST: magic, type, signer (2+34), extraData (2+32), clock info, version, select. */
const SELECT_AT = 4 + 2 + 36 + 34 + 17 + 8
const HASH_AT = SELECT_AT + 4
const BITS_AT = HASH_AT + 3

describe.each(BOOTS)("a quote of a real vm ($name)", (boot) => {
  test("is verified, with its pcrs and clock", () => {
    const quote = verifyQuote(untrusted(boot), boot)
    expect(quote.pcrs).toEqual(boot.pcrs)
    expect(quote.clock.resetCount).toBe(3)
    expect(QUOTED_PCRS).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  })

  test("is refused for another nonce, vm, purpose or request: they are all in the qualifying data", () => {
    expect(codeOf(() => verifyQuote(untrusted(boot), { ...boot, qualifyingData: random(32) }))).toBe(
      "evidence_nonce",
    )
  })

  test("is refused under another key", () => {
    const attestationKey = p256Generate().publicKey
    expect(codeOf(() => verifyQuote(untrusted(boot), { ...boot, attestationKey }))).toBe(
      "evidence_quote_signature",
    )
  })

  test("is refused with any bit of attest or signature changed", () => {
    for (const part of ["attest", "signature"] as const) {
      for (let at = 0; at < boot.quote[part].length; at += 1) {
        const bytes = boot.quote[part].slice()
        bytes[at]! ^= 1 << (at % 8)
        const quote = { ...untrusted(boot), [part]: bytes }
        expect(codeOf(() => verifyQuote(quote, boot))).toBe("evidence_quote_signature")
      }
    }
  })

  test("is refused with pcr values that were not quoted, too few, too many or of another length", () => {
    const { pcrs } = boot
    for (const other of [
      pcrs.with(4, random(32)),
      [...pcrs].reverse(),
      pcrs.slice(1),
      [...pcrs, random(32)],
      pcrs.with(0, new Uint8Array(31)),
      pcrs.with(3, new Uint8Array(64)),
      [],
    ]) {
      expect(codeOf(() => verifyQuote({ ...boot.quote, pcrs: other }, boot))).toBe("evidence_pcr_digest")
    }
  })

  test("verifies the same when it is replayed to a verifier that forgot its nonce, and not after a later one", () => {
    const first = verifyQuote(untrusted(boot), boot)
    const lastClock = { ...first.clock, clock: first.clock.clock + 1n }
    expect(codeOf(() => verifyQuote(untrusted(boot), { ...boot, lastClock }))).toBe("evidence_rollback")
    expect(
      codeOf(() => verifyQuote(untrusted(boot), { ...boot, lastClock: { ...first.clock, resetCount: 2 } })),
    ).toBe("evidence_reset")
  })

  test("copies the pcr values, so that their owner cannot change what was verified", () => {
    const pcrs = boot.pcrs.map((value) => value.slice())
    const quote = verifyQuote({ ...boot.quote, pcrs }, boot)
    pcrs[4]!.fill(0)
    expect(quote.pcrs).toEqual(boot.pcrs)
  })
})

describe("a signed attest that is not the quote asked for", () => {
  test("the layout the cases below rely on is that of the capture", () => {
    const { quote, expected } = resigned(OVMF_BOOT.quote.attest)
    expect(verifyQuote(quote, expected).pcrs).toEqual(OVMF_BOOT.pcrs)
    expect(OVMF_BOOT.quote.attest.slice(HASH_AT, HASH_AT + 6).toHex()).toBe("000b03ff0700")
  })

  const cases: [string, Uint8Array, string][] = [
    ["no tpm made it: another magic", changed(0, 0xfe), "evidence_quote_magic"],
    ["another kind of attest: a certified key", changed(5, 0x17), "evidence_quote_magic"],
    ["pcr 4 left out", changed(BITS_AT, 0xef), "evidence_pcr_selection"],
    ["pcr 10 left out", changed(BITS_AT + 1, 0x03), "evidence_pcr_selection"],
    ["one pcr more", changed(BITS_AT + 1, 0x0f), "evidence_pcr_selection"],
    ["no pcr at all", changed(BITS_AT, 0).with(BITS_AT + 1, 0), "evidence_pcr_selection"],
    ["the sha-1 bank", changed(HASH_AT + 1, 0x04), "evidence_pcr_bank"],
    ["the sha-384 bank", changed(HASH_AT + 1, 0x0c), "evidence_pcr_bank"],
    ["bytes behind its end", new Uint8Array([...OVMF_BOOT.quote.attest, 0]), "evidence_malformed"],
    ["its last byte missing", OVMF_BOOT.quote.attest.slice(0, -1), "evidence_malformed"],
  ]
  test.each(cases)("is refused: %s", (_, attest, code) => {
    const { quote, expected } = resigned(attest)
    expect(codeOf(() => verifyQuote(quote, expected))).toBe(code as never)
  })

  test("cut at any byte is an error of its own, never a crash", () => {
    for (let cut = 0; cut < OVMF_BOOT.quote.attest.length; cut += 1) {
      const { quote, expected } = resigned(OVMF_BOOT.quote.attest.slice(0, cut))
      expect(codeOf(() => verifyQuote(quote, expected))).toStartWith("evidence_")
    }
  })

  test("of another vm is refused as not this vm's", () => {
    expect(codeOf(() => verifyQuote(untrusted(SEABIOS_BOOT), OVMF_BOOT))).toBe("evidence_quote_signature")
  })
})

describe("qualifying data", () => {
  const fields = {
    purpose: "request",
    nonce: random(32),
    vmUuid: random(16),
    epoch: random(16),
    binding: random(32),
  } as const

  test("differs when any one field does", () => {
    const all = [
      fields,
      { ...fields, purpose: "answer" as const },
      { ...fields, nonce: random(32) },
      { ...fields, vmUuid: random(16) },
      { ...fields, epoch: random(16) },
      { ...fields, binding: random(32) },
      { ...fields, vmUuid: fields.epoch, epoch: fields.vmUuid },
    ].map((each) => evidenceQualifyingData(each).toHex())
    expect(new Set(all).size).toBe(all.length)
  })

  test("refuses fields of another length", () => {
    expect(() => evidenceQualifyingData({ ...fields, nonce: random(31) })).toThrow(RangeError)
    expect(() => evidenceQualifyingData({ ...fields, vmUuid: random(32) })).toThrow(RangeError)
  })

  test("is what the tpm puts into extraData, whole", () => {
    expect(parseQuote(OVMF_BOOT.quote.attest).extraData).toEqual(OVMF_BOOT.qualifyingData)
  })
})
