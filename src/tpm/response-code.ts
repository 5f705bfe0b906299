/**
 * @module tpm/response-code
 *
 * TPM response codes as one table. A format-1 code also says which handle, session or parameter it is about;
 * that part is decoded, not listed.
 *
 * @spec TPM 2.0 Part 2 §6.6
 */

import { MvmError } from "../lib/errors.ts"

export const TPM_RC_SUCCESS = 0x000

/** Format 0 codes (errors 0x1xx, warnings 0x9xx) as they stand; format 1 codes (0x080-0x0bf) without subject. */
export const TPM_RC: Readonly<Record<number, string>> = {
  0x01e: "TPM_RC_BAD_TAG",
  0x080: "TPM_RC_FMT1",
  0x081: "TPM_RC_ASYMMETRIC",
  0x082: "TPM_RC_ATTRIBUTES",
  0x083: "TPM_RC_HASH",
  0x084: "TPM_RC_VALUE",
  0x085: "TPM_RC_HIERARCHY",
  0x087: "TPM_RC_KEY_SIZE",
  0x088: "TPM_RC_MGF",
  0x089: "TPM_RC_MODE",
  0x08a: "TPM_RC_TYPE",
  0x08b: "TPM_RC_HANDLE",
  0x08c: "TPM_RC_KDF",
  0x08d: "TPM_RC_RANGE",
  0x08e: "TPM_RC_AUTH_FAIL",
  0x08f: "TPM_RC_NONCE",
  0x090: "TPM_RC_PP",
  0x092: "TPM_RC_SCHEME",
  0x095: "TPM_RC_SIZE",
  0x096: "TPM_RC_SYMMETRIC",
  0x097: "TPM_RC_TAG",
  0x098: "TPM_RC_SELECTOR",
  0x09a: "TPM_RC_INSUFFICIENT",
  0x09b: "TPM_RC_SIGNATURE",
  0x09c: "TPM_RC_KEY",
  0x09d: "TPM_RC_POLICY_FAIL",
  0x09f: "TPM_RC_INTEGRITY",
  0x0a0: "TPM_RC_TICKET",
  0x0a1: "TPM_RC_RESERVED_BITS",
  0x0a2: "TPM_RC_BAD_AUTH",
  0x0a3: "TPM_RC_EXPIRED",
  0x0a4: "TPM_RC_POLICY_CC",
  0x0a5: "TPM_RC_BINDING",
  0x0a6: "TPM_RC_CURVE",
  0x0a7: "TPM_RC_ECC_POINT",
  0x100: "TPM_RC_INITIALIZE",
  0x101: "TPM_RC_FAILURE",
  0x103: "TPM_RC_SEQUENCE",
  0x10b: "TPM_RC_PRIVATE",
  0x119: "TPM_RC_HMAC",
  0x120: "TPM_RC_DISABLED",
  0x121: "TPM_RC_EXCLUSIVE",
  0x124: "TPM_RC_AUTH_TYPE",
  0x125: "TPM_RC_AUTH_MISSING",
  0x126: "TPM_RC_POLICY",
  0x127: "TPM_RC_PCR",
  0x128: "TPM_RC_PCR_CHANGED",
  0x12d: "TPM_RC_UPGRADE",
  0x12e: "TPM_RC_TOO_MANY_CONTEXTS",
  0x12f: "TPM_RC_AUTH_UNAVAILABLE",
  0x130: "TPM_RC_REBOOT",
  0x131: "TPM_RC_UNBALANCED",
  0x142: "TPM_RC_COMMAND_SIZE",
  0x143: "TPM_RC_COMMAND_CODE",
  0x144: "TPM_RC_AUTHSIZE",
  0x145: "TPM_RC_AUTH_CONTEXT",
  0x146: "TPM_RC_NV_RANGE",
  0x147: "TPM_RC_NV_SIZE",
  0x148: "TPM_RC_NV_LOCKED",
  0x149: "TPM_RC_NV_AUTHORIZATION",
  0x14a: "TPM_RC_NV_UNINITIALIZED",
  0x14b: "TPM_RC_NV_SPACE",
  0x14c: "TPM_RC_NV_DEFINED",
  0x150: "TPM_RC_BAD_CONTEXT",
  0x151: "TPM_RC_CPHASH",
  0x152: "TPM_RC_PARENT",
  0x153: "TPM_RC_NEEDS_TEST",
  0x154: "TPM_RC_NO_RESULT",
  0x155: "TPM_RC_SENSITIVE",
  0x901: "TPM_RC_CONTEXT_GAP",
  0x902: "TPM_RC_OBJECT_MEMORY",
  0x903: "TPM_RC_SESSION_MEMORY",
  0x904: "TPM_RC_MEMORY",
  0x905: "TPM_RC_SESSION_HANDLES",
  0x906: "TPM_RC_OBJECT_HANDLES",
  0x907: "TPM_RC_LOCALITY",
  0x908: "TPM_RC_YIELDED",
  0x909: "TPM_RC_CANCELED",
  0x90a: "TPM_RC_TESTING",
  0x910: "TPM_RC_REFERENCE_H0",
  0x911: "TPM_RC_REFERENCE_H1",
  0x912: "TPM_RC_REFERENCE_H2",
  0x918: "TPM_RC_REFERENCE_S0",
  0x920: "TPM_RC_NV_RATE",
  0x921: "TPM_RC_LOCKOUT",
  0x922: "TPM_RC_RETRY",
  0x923: "TPM_RC_NV_UNAVAILABLE",
}

/** Warnings after which the same command is to be sent again. */
const AGAIN = new Set(["TPM_RC_RETRY", "TPM_RC_YIELDED", "TPM_RC_TESTING"])

export interface ResponseCode {
  /** The specification's name, or "unknown". */
  name: string
  /** What a format-1 code is about. */
  subject?: "handle" | "session" | "parameter"
  /** Its number, counted from 1; absent when the TPM did not say. */
  index?: number
}

/** @spec Part 2 §6.6.2, figure "Format-One Response Codes" */
export function decodeResponseCode(rc: number): ResponseCode {
  if (rc > 0xfff) return { name: "unknown" }
  if ((rc & 0x080) === 0) return { name: TPM_RC[rc] ?? "unknown" }
  const name = TPM_RC[rc & 0x0bf] ?? "unknown"
  const isParameter = (rc & 0x040) !== 0
  const subject = isParameter ? "parameter" : (rc & 0x800) !== 0 ? "session" : "handle"
  const index = (rc >> 8) & (isParameter ? 0xf : 0x7)
  if (index !== 0) return { name, subject, index }
  return isParameter || subject === "session" ? { name, subject } : { name }
}

/** A command the TPM answered with a code other than success. */
export class TpmResponseError extends MvmError {
  readonly rc: number
  readonly responseCode: ResponseCode

  constructor(command: string, rc: number) {
    const code = decodeResponseCode(rc)
    const about = code.subject === undefined ? "" : `, ${code.subject}${code.index ? ` ${code.index}` : ""}`
    super("tpm", `${command}: ${code.name} (0x${rc.toString(16).padStart(3, "0")}${about})`)
    this.rc = rc
    this.responseCode = code
  }

  /** Whether the TPM asks for the command again. */
  get again(): boolean {
    return AGAIN.has(this.responseCode.name)
  }
}
