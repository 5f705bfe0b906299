/**
 * Every structure decoder against bytes that tpm2-tools wrote: accepts them whole, refuses each truncation, a
 * trailing byte, and unknown values, naming the field; never fails with anything but an MvmError.
 */

import { describe, expect, test } from "bun:test"
import { fromHex, toHex } from "../../src/lib/bytes.ts"
import type { ErrorCode } from "../../src/lib/errors.ts"
import { decodeClockInfo, parseQuote } from "../../src/tpm/attest.ts"
import { decodeNvPublic, encodeNvPublic } from "../../src/tpm/nv-public.ts"
import { decodeDigests, decodePcrSelection, encodeSha256Selection } from "../../src/tpm/pcr-selection.ts"
import { decodePublic, encodePublic, nameOf } from "../../src/tpm/public.ts"
import { decodeSignature, encodeSignature } from "../../src/tpm/signature.ts"
import { matchesTemplate } from "../../src/tpm/templates.ts"
import {
  ATTEST,
  SIGNATURE,
  STORAGE_PUBLIC,
  ATTESTATION_PUBLIC,
  ATTESTATION_NAME,
  SEALING_PUBLIC,
  NV_PUBLIC,
  SELECTION,
  DIGESTS,
  CLOCK_INFO,
  failure,
  survivesMutation,
} from "./golden.ts"

interface Case {
  structure: string
  golden: string
  decode(bytes: Uint8Array): unknown
  /** [byte offset, bytes to put there, field or text the error names, code if not tpm] */
  unknown: [number, string, string, ErrorCode?][]
}

const CASES: Case[] = [
  {
    structure: "TPMS_ATTEST",
    golden: ATTEST,
    decode: parseQuote,
    unknown: [
      [0, "00544347", "magic", "evidence_quote_magic"],
      [4, "8017", "type", "evidence_quote_magic"],
      [6, "0043", "qualifiedSigner.size"],
      [42, "0043", "extraData.size"],
      [64, "02", "clockInfo.safe"],
      [73, "00000011", "pcrSelection.count"],
      [77, "0004", "pcrSelect: banks 0x4", "evidence_pcr_bank"],
      [79, "04", "sizeofSelect"],
      [83, "0021", "pcrDigest.size"],
    ],
  },
  {
    structure: "TPMT_SIGNATURE",
    golden: SIGNATURE,
    decode: decodeSignature,
    unknown: [
      [0, "0014", "sigAlg"],
      [2, "0004", "signature.hash"],
      [4, "0021", "signatureR.size"],
      [38, "0021", "signatureS.size"],
    ],
  },
  {
    structure: "TPMT_PUBLIC",
    golden: ATTESTATION_PUBLIC,
    decode: decodePublic,
    unknown: [
      [0, "0001", "type"],
      [2, "0004", "nameAlg"],
      [4, "80050472", "objectAttributes"],
      [4, "00050473", "objectAttributes"],
      [8, "0021", "authPolicy.size"],
      [8, "0001", "authPolicy.size"],
      [10, "0013", "symmetric.algorithm"],
      [12, "001a", "scheme.scheme"],
      [14, "000c", "scheme.hashAlg"],
      [16, "0004", "curveID"],
      [18, "0020", "kdf.scheme"],
      [20, "0021", "x.size"],
      [54, "0021", "y.size"],
    ],
  },
  {
    structure: "TPMT_PUBLIC",
    golden: STORAGE_PUBLIC,
    decode: decodePublic,
    unknown: [
      [12, "0100", "symmetric.keyBits"],
      [14, "0042", "symmetric.mode"],
    ],
  },
  {
    structure: "TPMS_NV_PUBLIC",
    golden: NV_PUBLIC,
    decode: decodeNvPublic,
    unknown: [
      [0, "81c10100", "nvIndex"],
      [4, "0004", "nameAlg"],
      [6, "63070001", "attributes"],
      [6, "62070101", "attributes"],
      [10, "0041", "authPolicy.size"],
    ],
  },
  {
    structure: "TPML_PCR_SELECTION",
    golden: SELECTION,
    decode: decodePcrSelection,
    unknown: [
      [0, "00000011", "pcrSelection.count"],
      [0, "ffffffff", "pcrSelection.count"],
      [6, "02", "pcrSelection[0].sizeofSelect"],
    ],
  },
  {
    structure: "TPML_DIGEST",
    golden: DIGESTS,
    decode: decodeDigests,
    unknown: [
      [0, "00000009", "digests.count"],
      [38, "0041", "digests[1].size"],
    ],
  },
  {
    structure: "TPMS_CLOCK_INFO",
    golden: CLOCK_INFO,
    decode: decodeClockInfo,
    unknown: [[16, "02", "clockInfo.safe"]],
  },
]

describe.each(CASES)("$structure", ({ structure, golden, decode, unknown }) => {
  const bytes = fromHex(golden)

  test("accepts the bytes of tpm2-tools", () => {
    expect(() => decode(bytes)).not.toThrow()
  })

  test("refuses every truncation, naming the field", () => {
    for (let length = 0; length < bytes.length; length++) {
      const error = failure(() => decode(bytes.slice(0, length)))
      expect(error.code).toBe("tpm")
      expect(error.message).toMatch(new RegExp(`^${structure}\\.[\\w.[\\]]+: needs \\d+ bytes`))
    }
  })

  test("refuses a trailing byte", () => {
    const error = failure(() => decode(new Uint8Array([...bytes, 0])))
    expect(error.code).toBe("tpm")
    expect(error.message).toContain(`${structure}.end: 1 trailing bytes`)
  })

  test.each(unknown)("refuses, at offset %d, %s: %s", (offset, put, field, code = "tpm") => {
    const changed = bytes.slice()
    changed.set(fromHex(put), offset)
    const error = failure(() => decode(changed))
    expect(error.message).toContain(field)
    expect(error.code).toBe(code as ErrorCode)
  })

  test("survives 2000 seeded mutations", () => survivesMutation(bytes, decode))
})

describe("what decoders give", () => {
  test("a quote's fields as tpm2_quote was asked for them", () => {
    const quote = parseQuote(fromHex(ATTEST))
    expect(toHex(quote.extraData)).toBe("00112233")
    expect(quote).toMatchObject({
      clock: 0x51n,
      resetCount: 3,
      restartCount: 0,
      safe: true,
      firmwareVersion: 0x2019102300163636n,
      pcrSelection: [0, 1, 2, 3, 4, 5, 6, 7, 9, 10],
    })
    expect(toHex(quote.pcrDigest)).toBe("7b6436b0c98f62380866d9432c2af0ee08ce16a171bda6951aecd95ee1307d61")
    expect(quote.qualifiedSigner.length).toBe(34)
  })

  test("a quote over no bank at all is refused", () => {
    const none = fromHex(ATTEST.replace("00000001000b03ff0600", "00000000"))
    expect(failure(() => parseQuote(none)).code).toBe("evidence_pcr_bank")
  })

  test("a selection of one bank twice is refused", () => {
    const twice = fromHex(`00000002${"000b03ff0600".repeat(2)}`)
    expect(failure(() => decodePcrSelection(twice)).message).toContain("bank 0xb twice")
  })

  test("results are copies: later changes of the input do not reach them", () => {
    const bytes = fromHex(ATTEST)
    const quote = parseQuote(bytes)
    bytes.fill(0)
    expect(toHex(quote.extraData)).toBe("00112233")
  })

  test("the Name computed from a public area is the TPM's", () => {
    expect(toHex(nameOf(fromHex(ATTESTATION_PUBLIC)))).toBe(ATTESTATION_NAME)
  })

  test("short scalars are padded on the left", () => {
    const signature = decodeSignature(fromHex("0018000b000111000200ff"))
    expect(toHex(signature)).toBe(`${"00".repeat(31)}11${"00".repeat(31)}ff`)
  })

  test("public areas match their template and no other", () => {
    const [storage, attestation, sealing] = [STORAGE_PUBLIC, ATTESTATION_PUBLIC, SEALING_PUBLIC].map((hex) =>
      decodePublic(fromHex(hex)),
    )
    expect(matchesTemplate("storage", storage!)).toBe(true)
    expect(matchesTemplate("attestation", attestation!)).toBe(true)
    expect(matchesTemplate("identity", attestation!)).toBe(false)
    expect(matchesTemplate("sealing", sealing!)).toBe(true)
    expect(matchesTemplate("sealing", storage!)).toBe(false)
  })

  test("encoders give the bytes back", () => {
    for (const hex of [STORAGE_PUBLIC, ATTESTATION_PUBLIC, SEALING_PUBLIC]) {
      expect(toHex(encodePublic(decodePublic(fromHex(hex))))).toBe(hex)
    }
    expect(toHex(encodeSignature(decodeSignature(fromHex(SIGNATURE))))).toBe(SIGNATURE)
    expect(toHex(encodeNvPublic(decodeNvPublic(fromHex(NV_PUBLIC))))).toBe(NV_PUBLIC)
    expect(toHex(encodeSha256Selection([10, 9, 7, 6, 5, 4, 3, 2, 1, 0]))).toBe(SELECTION)
  })

  test("a PCR index outside 0-23 is refused before it is sent", () => {
    for (const index of [-1, 24, 1.5]) {
      expect(failure(() => encodeSha256Selection([index])).message).toContain("pcr index")
    }
  })
})
