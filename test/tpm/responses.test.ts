/**
 * Every response decoder and the frame around it: accepts a whole response, refuses each truncation and anything
 * trailing, with the header's size as it was and made to fit.
 */

import { describe, expect, test } from "bun:test"
import { fromHex, toHex } from "../../src/lib/bytes.ts"
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
import { keyTemplate } from "../../src/tpm/templates.ts"
import {
  ATTEST,
  SIGNATURE,
  ATTESTATION_PUBLIC,
  NV_PUBLIC,
  SELECTION,
  DIGESTS,
  CLOCK_INFO,
  failure,
  survivesMutation,
} from "./golden.ts"

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
