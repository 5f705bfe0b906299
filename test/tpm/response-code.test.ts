import { describe, expect, test } from "bun:test"
import { TpmResponseError, decodeResponseCode } from "../../src/tpm/response-code.ts"

// The right-hand sides are what tpm2_rc_decode says for these codes.
describe("decodeResponseCode", () => {
  test.each([
    [0x100, { name: "TPM_RC_INITIALIZE" }],
    [0x101, { name: "TPM_RC_FAILURE" }],
    [0x12f, { name: "TPM_RC_AUTH_UNAVAILABLE" }],
    [0x902, { name: "TPM_RC_OBJECT_MEMORY" }],
    [0x921, { name: "TPM_RC_LOCKOUT" }],
    [0x922, { name: "TPM_RC_RETRY" }],
    [0x9a2, { name: "TPM_RC_BAD_AUTH", subject: "session", index: 1 }],
    [0x98e, { name: "TPM_RC_AUTH_FAIL", subject: "session", index: 1 }],
    [0xa8e, { name: "TPM_RC_AUTH_FAIL", subject: "session", index: 2 }],
    [0x18b, { name: "TPM_RC_HANDLE", subject: "handle", index: 1 }],
    [0x28b, { name: "TPM_RC_HANDLE", subject: "handle", index: 2 }],
    [0x1d5, { name: "TPM_RC_SIZE", subject: "parameter", index: 1 }],
    [0x2c4, { name: "TPM_RC_VALUE", subject: "parameter", index: 2 }],
    [0xfc4, { name: "TPM_RC_VALUE", subject: "parameter", index: 15 }],
    [0x082, { name: "TPM_RC_ATTRIBUTES" }],
  ])("code %d is %o", (rc, expected) => {
    expect(decodeResponseCode(rc)).toEqual(expected as ReturnType<typeof decodeResponseCode>)
  })

  test("codes outside the table and above 12 bits are unknown", () => {
    expect(decodeResponseCode(0x9ff & ~0x80).name).toBe("unknown")
    expect(decodeResponseCode(0x80280400).name).toBe("unknown")
  })
})

describe("TpmResponseError", () => {
  test("says command, name, number, subject and index", () => {
    expect(new TpmResponseError("TPM2_Sign", 0x2c4).message).toBe(
      "TPM2_Sign: TPM_RC_VALUE (0x2c4, parameter 2)",
    )
  })

  test("only retry, yielded and testing ask for the command again", () => {
    const again = [0x922, 0x908, 0x90a, 0x902, 0x921, 0x100].map((rc) => new TpmResponseError("T", rc).again)
    expect(again).toEqual([true, true, true, false, false, false])
  })
})
