/**
 * Every response decoder and the frame around it: accepts a whole response, refuses each truncation and anything
 * trailing, with the header's size as it was and made to fit.
 */

import { describe, expect, test } from "bun:test"
import { fromHex, toHex } from "../../src/lib/bytes.ts"
import { decodeResponse, encodeCommand } from "../../src/tpm/command.ts"
import { signCommand } from "../../src/tpm/commands-key.ts"
import { pcrExtendCommand } from "../../src/tpm/commands-pcr.ts"
import { RESPONSES, response } from "./golden-responses.ts"
import { SIGNATURE, failure, survivesMutation } from "./golden.ts"

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
  const sign = signCommand(1, new Uint8Array(32))
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
