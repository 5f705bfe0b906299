/**
 * @module tpm/commands-key
 *
 * Commands that make, keep and use keys.
 *
 * @spec TPM 2.0 Part 3 §12.4, §14.5, §18.4, §20.2, §24.1, §28.4, §28.5
 */

import { ByteReader } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import { EMPTY_AUTH, decodeNothing, type TpmCommand } from "./command.ts"
import { TPM_ALG, TPM_CC, TPM_RH, TPM_ST } from "./constants.ts"
import { TpmWriter, expectU16, readTpm2b } from "./marshal.ts"
import { encodeSha256Selection } from "./pcr-selection.ts"
import { type EccPublic, MAX_PUBLIC_BYTES, decodePublic, encodePublic } from "./public.ts"
import { readScalar, readSignature } from "./signature.ts"

const MAX_ATTEST_BYTES = 1024
const MAX_NAME_BYTES = 66
const MAX_DIGEST_BYTES = 64
const SHA256_BYTES = 32
const POINT_BYTES = 65
const MAX_EXTRA_DATA_BYTES = 66

/** A public area with the bytes it was decoded from (Names cover the bytes). */
export interface PublicArea {
  publicBytes: Uint8Array
  key: EccPublic
  /** Name as the TPM states it. */
  name: Uint8Array
}

/** @spec Part 3 §12.4 */
export function readPublicCommand(handle: number): TpmCommand<PublicArea> {
  return {
    name: "TPM2_ReadPublic",
    code: TPM_CC.READ_PUBLIC,
    handles: [handle],
    decode: (reader) => {
      const publicBytes = readTpm2b(reader, "outPublic", MAX_PUBLIC_BYTES)
      const name = readTpm2b(reader, "name", MAX_NAME_BYTES)
      readTpm2b(reader, "qualifiedName", MAX_NAME_BYTES)
      return { publicBytes, key: decodePublic(publicBytes), name }
    },
  }
}

/** With the key's own scheme. @param digest 32 bytes @returns 64 bytes r || s. @spec Part 3 §20.2 */
export function signCommand(handle: number, digest: Uint8Array): TpmCommand<Uint8Array> {
  requireLength("digest", digest, SHA256_BYTES)
  const parameters = new TpmWriter()
    .tpm2b(digest)
    .u16(TPM_ALG.NULL)
    // An empty ticket: enough for an unrestricted key, refused by a restricted one.
    .u16(TPM_ST.HASHCHECK)
    .u32(TPM_RH.NULL)
    .tpm2b(EMPTY_AUTH)
    .done()
  return {
    name: "TPM2_Sign",
    code: TPM_CC.SIGN,
    handles: [handle],
    auths: [EMPTY_AUTH],
    parameters,
    decode: readSignature,
  }
}

export interface SignedAttest {
  /** TPMS_ATTEST. */
  attest: Uint8Array
  /** 64 bytes, r || s over SHA-256(attest). */
  signature: Uint8Array
}

/** @spec Part 3 §18.4 */
export function quoteCommand(
  handle: number,
  qualifyingData: Uint8Array,
  pcrs: readonly number[],
): TpmCommand<SignedAttest> {
  if (qualifyingData.length > MAX_EXTRA_DATA_BYTES) {
    throw new MvmError(
      "tpm",
      `qualifying data: ${qualifyingData.length} bytes, at most ${MAX_EXTRA_DATA_BYTES}`,
    )
  }
  return {
    name: "TPM2_Quote",
    code: TPM_CC.QUOTE,
    handles: [handle],
    auths: [EMPTY_AUTH],
    parameters: new TpmWriter()
      .tpm2b(qualifyingData)
      .u16(TPM_ALG.NULL)
      .bytes(encodeSha256Selection(pcrs))
      .done(),
    decode: (reader) => ({
      attest: readTpm2b(reader, "quoted", MAX_ATTEST_BYTES),
      signature: readSignature(reader),
    }),
  }
}

/** @param point 65 bytes SEC1 @returns the shared point's x coordinate, 32 bytes. @spec Part 3 §14.5 */
export function ecdhZGenCommand(handle: number, point: Uint8Array): TpmCommand<Uint8Array> {
  requireLength("point", point, POINT_BYTES)
  if (point[0] !== 4) throw new MvmError("tpm", "point: not an uncompressed SEC1 point")
  const inPoint = new TpmWriter().tpm2b(point.subarray(1, 33)).tpm2b(point.subarray(33)).done()
  return {
    name: "TPM2_ECDH_ZGen",
    code: TPM_CC.ECDH_ZGEN,
    handles: [handle],
    auths: [EMPTY_AUTH],
    parameters: new TpmWriter().tpm2b(inPoint).done(),
    decode: (reader) => {
      const outPoint = new ByteReader(readTpm2b(reader, "outPoint", 2 * (2 + 32)), "outPoint", "tpm")
      const x = readScalar(outPoint, "x")
      readScalar(outPoint, "y")
      outPoint.end()
      return x
    },
  }
}

export interface CreatedPrimary extends PublicArea {
  /** Transient handle; flush it. */
  handle: number
}

/** @spec Part 3 §24.1 */
export function createPrimaryCommand(
  hierarchy: number,
  template: EccPublic,
  auth: Uint8Array,
): TpmCommand<CreatedPrimary> {
  const inSensitive = new TpmWriter().tpm2b(EMPTY_AUTH).tpm2b(EMPTY_AUTH).done()
  return {
    name: "TPM2_CreatePrimary",
    code: TPM_CC.CREATE_PRIMARY,
    handles: [hierarchy],
    auths: [auth],
    parameters: new TpmWriter()
      .tpm2b(inSensitive)
      .tpm2b(encodePublic(template))
      .tpm2b(EMPTY_AUTH)
      .u32(0)
      .done(),
    returnsHandle: true,
    decode: (reader, handle) => {
      const publicBytes = readTpm2b(reader, "outPublic", MAX_PUBLIC_BYTES)
      readTpm2b(reader, "creationData", MAX_ATTEST_BYTES)
      readTpm2b(reader, "creationHash", MAX_DIGEST_BYTES)
      expectU16(reader, "creationTicket.tag", 0x8021)
      reader.u32be("creationTicket.hierarchy")
      readTpm2b(reader, "creationTicket.digest", MAX_DIGEST_BYTES)
      const name = readTpm2b(reader, "name", MAX_NAME_BYTES)
      return { handle, publicBytes, key: decodePublic(publicBytes), name }
    },
  }
}

/**
 * Makes transient `object` persistent at `persistent`, or, when both are the same, removes the persistent object.
 *
 * @spec Part 3 §28.5
 */
export function evictControlCommand(
  hierarchy: number,
  { object, persistent }: { object: number; persistent: number },
  auth: Uint8Array,
): TpmCommand<void> {
  return {
    name: "TPM2_EvictControl",
    code: TPM_CC.EVICT_CONTROL,
    handles: [hierarchy, object],
    auths: [auth],
    parameters: new TpmWriter().u32(persistent).done(),
    decode: decodeNothing,
  }
}

/** The handle is a parameter here, by the specification. @spec Part 3 §28.4 */
export function flushContextCommand(handle: number): TpmCommand<void> {
  return {
    name: "TPM2_FlushContext",
    code: TPM_CC.FLUSH_CONTEXT,
    parameters: new TpmWriter().u32(handle).done(),
    decode: decodeNothing,
  }
}

function requireLength(field: string, bytes: Uint8Array, lengthBytes: number): void {
  if (bytes.length !== lengthBytes) {
    throw new MvmError("tpm", `${field}: ${bytes.length} bytes, ${lengthBytes} expected`)
  }
}
