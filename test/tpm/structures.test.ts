/**
 * Every structure decoder against bytes that tpm2-tools wrote: accepts them whole, refuses each truncation, a
 * trailing byte, and unknown values, naming the field; never fails with anything but an MvmError.
 */

import { describe, expect, test } from "bun:test"
import { fromHex, toHex } from "../../src/lib/bytes.ts"
import { type ErrorCode, MvmError } from "../../src/lib/errors.ts"
import { decodeClockInfo, parseQuote } from "../../src/tpm/attest.ts"
import { type TpmCommand, decodeResponse, encodeCommand } from "../../src/tpm/command.ts"
import {
  createPrimaryCommand,
  ecdhZGenCommand,
  quoteCommand,
  readPublicCommand,
  signCommand,
} from "../../src/tpm/commands-key.ts"
import { nvReadCommand, nvReadPublicCommand } from "../../src/tpm/commands-nv.ts"
import { pcrAllocateCommand, pcrExtendCommand, pcrReadCommand } from "../../src/tpm/commands-pcr.ts"
import {
  getHandlesCommand,
  getPcrBanksCommand,
  getPropertyCommand,
  getRandomCommand,
  readClockCommand,
} from "../../src/tpm/commands-state.ts"
import { decodeNvPublic, encodeNvPublic } from "../../src/tpm/nv-public.ts"
import { decodeDigests, decodePcrSelection, encodeSha256Selection } from "../../src/tpm/pcr-selection.ts"
import { decodePublic, encodePublic, nameOf } from "../../src/tpm/public.ts"
import { decodeSignature, encodeSignature } from "../../src/tpm/signature.ts"
import { keyTemplate, matchesTemplate } from "../../src/tpm/templates.ts"

// Written by tpm2_quote, tpm2_readpublic -f tss (without its length), tpm2_nvreadpublic of a provisioned vTPM.
const ATTEST =
  "ff54434780180022000b3a89bd7061de44c21f39338a58cf81b8d2757d875ff9539c1c2b14d30b231b8000040011223300000000" +
  "00000051000000030000000001201910230016363600000001000b03ff060000207b6436b0c98f62380866d9432c2af0ee08ce16" +
  "a171bda6951aecd95ee1307d61"
const SIGNATURE =
  "0018000b0020fed2071e01cf08d572e02b808863ef5536a2cb1853e469aafcea02d66a7b71050020f570bcd79a05ea3742cef4db" +
  "fc647a5df3c5b662d7e8ebada4240b1651797b7e"
const STORAGE_PUBLIC =
  "0023000b0003047200000006008000430010000300100020a49fb4b80b03d04ce2f4d0076ee2c409b6561add296090fd47b711a9" +
  "2083c3ff0020b166c841ed863cf9da303827896bf5a104a302391cd1ec64bd1ae7e30e9a3e24"
const ATTESTATION_PUBLIC =
  "0023000b00050472000000100018000b00030010002086770d2049a723161203877781d97b5a1d2df9b03ceba1e82e955607df86" +
  "9d2500206e0cf8d251d4e3ccb83e4b6438f6260f99a6a3f79b3c166f892397b669777835"
const ATTESTATION_NAME = "000b31a1a1d3d49ce2ecc58c0cfa79438264aa1ce0451f630cb68a6a9d5d91ce21a8"
const SEALING_PUBLIC =
  "0023000b00020472000000100019000b000300100020a8fbaca8e2f4fad5f1e78bc260d9420049127be1b488a7ce94f1f79abc20" +
  "ae6b0020ce86d0d29655903af03258c2830d65b5d993e610678371fc376abb5ab399a3e0"
const NV_PUBLIC = "01c10100000b6207000100000041"
const SELECTION = "00000001000b03ff0600"
const DIGESTS = `000000020020${"11".repeat(32)}0020${"22".repeat(32)}`
const CLOCK_INFO = "0000000000000051000000030000000001"

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
      [77, "0004", "pcrSelect: banks 0x4", "evidence_pcr_selection"],
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

function failure(run: () => unknown): MvmError {
  let error: unknown
  try {
    run()
  } catch (thrown) {
    error = thrown
  }
  expect(error).toBeInstanceOf(MvmError)
  return error as MvmError
}

/** Deterministic 32-bit generator, so that a failure can be repeated. */
function mulberry32(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
}

/** Decodes mutated copies; only MvmError may come out. */
function survivesMutation(golden: Uint8Array, decode: (bytes: Uint8Array) => unknown): void {
  const next = mulberry32(0x7e57)
  for (let round = 0; round < 2000; round++) {
    const bytes = golden.slice(0, 1 + (next() % (golden.length + 1)))
    const flips = 1 + (next() % 4)
    for (let i = 0; i < flips; i++) bytes[next() % bytes.length] = next() & 0xff
    try {
      decode(bytes)
    } catch (error) {
      if (!(error instanceof MvmError)) throw error
    }
  }
}

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
    expect(failure(() => parseQuote(none)).code).toBe("evidence_pcr_selection")
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

const digest32 = new Uint8Array(32)
const point65 = new Uint8Array(65).fill(4)
const t2b = (hex: string): string => (hex.length / 2).toString(16).padStart(4, "0") + hex
const NAME = `000b${"33".repeat(32)}`

interface ResponseCase {
  command: TpmCommand<unknown>
  /** Response handle if any, and parameters, in hex. */
  handle?: string
  parameters: string
}

const RESPONSES: ResponseCase[] = [
  { command: getRandomCommand(4), parameters: t2b("01020304") },
  { command: readClockCommand(), parameters: `0000000000000001${CLOCK_INFO}` },
  { command: getHandlesCommand(0x81000000), parameters: "01000000010000000281800001" + "81800002" },
  { command: getPropertyCommand(0x105), parameters: "0000000006000000010000010549424d00" },
  { command: getPcrBanksCommand(), parameters: `0000000005${SELECTION}` },
  { command: readPublicCommand(1), parameters: t2b(ATTESTATION_PUBLIC) + t2b(NAME) + t2b(NAME) },
  { command: signCommand(1, digest32), parameters: SIGNATURE },
  { command: quoteCommand(1, digest32, [0]), parameters: t2b(ATTEST) + SIGNATURE },
  {
    command: ecdhZGenCommand(1, point65),
    parameters: t2b(t2b("44".repeat(32)) + t2b("55".repeat(32))),
  },
  {
    command: createPrimaryCommand(0x4000000c, keyTemplate("identity", digest32), new Uint8Array(0)),
    handle: "80000000",
    parameters:
      t2b(ATTESTATION_PUBLIC) +
      t2b("66".repeat(40)) +
      t2b("77".repeat(32)) +
      "80214000000c" +
      t2b("") +
      t2b(NAME),
  },
  { command: pcrReadCommand([0, 1]), parameters: `0000001400000001000b03030000${DIGESTS}` },
  { command: pcrExtendCommand(10, digest32), parameters: "" },
  { command: pcrAllocateCommand([], new Uint8Array(0)), parameters: "01000000180000000000001000" },
  { command: nvReadPublicCommand(0x01c10100), parameters: t2b(NV_PUBLIC) + t2b(NAME) },
  { command: nvReadCommand(0x01c10100, 4, 0), parameters: t2b("01020304") },
]

function response({ command, handle = "", parameters }: ResponseCase): Uint8Array {
  const sessions = command.auths?.length ?? 0
  const size = (parameters.length / 2).toString(16).padStart(8, "0")
  const body = handle + (sessions > 0 ? size : "") + parameters + "0000010000".repeat(sessions)
  const total = (10 + body.length / 2).toString(16).padStart(8, "0")
  return fromHex(`${sessions > 0 ? "8002" : "8001"}${total}00000000${body}`)
}

/** With the header's size set right, so that what is inside is what fails. */
function resized(bytes: Uint8Array): Uint8Array {
  const out = bytes.slice()
  if (out.length >= 6) new DataView(out.buffer).setUint32(2, out.length)
  return out
}

describe.each(RESPONSES.map((entry) => ({ ...entry, name: entry.command.name })))(
  "$name response",
  (entry) => {
    const bytes = response(entry)
    const decode = (input: Uint8Array): unknown => decodeResponse(entry.command, input)

    test("is accepted whole", () => {
      expect(() => decode(bytes)).not.toThrow()
    })

    test("refuses every truncation, with the size as it was and corrected", () => {
      for (let length = 0; length < bytes.length; length++) {
        expect(failure(() => decode(bytes.slice(0, length))).code).toBe("tpm")
        const error = failure(() => decode(resized(bytes.slice(0, length))))
        expect(error.code).toBe("tpm")
        expect(error.message).toMatch(/^\w+( response)?\.[\w.[\]]+: /)
      }
    })

    test("refuses a trailing byte, with the size as it was and corrected", () => {
      const longer = new Uint8Array([...bytes, 0])
      expect(failure(() => decode(longer)).message).toContain("responseSize")
      expect(failure(() => decode(resized(longer))).message).toMatch(/: /)
    })

    test("survives 2000 seeded mutations", () => survivesMutation(bytes, (input) => decode(resized(input))))
  },
)

describe("the frame of a response", () => {
  const sign = signCommand(1, digest32)
  const good = response({ command: sign, parameters: SIGNATURE })
  const changed = (offset: number, put: string): Uint8Array => {
    const bytes = good.slice()
    bytes.set(fromHex(put), offset)
    return bytes
  }

  test("refuses a tag that is not the command's", () => {
    expect(failure(() => decodeResponse(sign, changed(0, "8001"))).message).toContain("tag")
  })

  test("refuses a parameterSize beyond the response", () => {
    expect(failure(() => decodeResponse(sign, changed(10, "00001000"))).message).toContain("parameters")
  })

  test("refuses a session answer that is not a password's", () => {
    const end = good.length
    expect(failure(() => decodeResponse(sign, changed(end - 5, "0001"))).message).toContain("nonceTPM.size")
    expect(failure(() => decodeResponse(sign, changed(end - 3, "00"))).message).toContain("sessionAttributes")
    expect(failure(() => decodeResponse(sign, changed(end - 2, "0001"))).message).toContain("hmac.size")
  })

  test("an error response carries nothing else", () => {
    const error = failure(() => decodeResponse(sign, fromHex("80010000000b0000010100")))
    expect(error.message).toContain("1 trailing bytes")
    expect(failure(() => decodeResponse(sign, fromHex("80020000000a00000101"))).message).toContain("tag")
  })
})

describe("a command", () => {
  test("has the bytes of the specification's layout", () => {
    const extend = pcrExtendCommand(10, new Uint8Array(32).fill(0xaa))
    // tag, size, code, pcrHandle, authorizationSize, TPM_RS_PW, no nonce, no attributes, empty password, digests.
    expect(toHex(encodeCommand(extend))).toBe(
      `80020000004100000182${"0000000a"}${"00000009"}40000009${"0000"}00${"0000"}00000001000b${"aa".repeat(32)}`,
    )
  })

  test("over 4096 bytes is refused", () => {
    const parameters = new Uint8Array(4087)
    const command = { name: "TPM2_Test", code: 1, parameters, decode: () => {} }
    expect(failure(() => encodeCommand(command)).code).toBe("too_large")
  })
})
