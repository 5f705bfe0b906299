/**
 * @module tpm/command
 *
 * The frame around every command and response: header, handles, password sessions, parameters. Each command of
 * this folder is a function that returns a {@link TpmCommand}, its response's decoder beside it.
 *
 * @spec TPM 2.0 Part 1 §18 (command/response structure), §19.4 (password authorizations), Part 3 §5.2
 */

import { ByteReader } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import { MAX_TPM_MESSAGE_BYTES, TPM_RS_PW, TPM_ST } from "./constants.ts"
import { TpmWriter } from "./marshal.ts"
import { TPM_RC_SUCCESS, TpmResponseError } from "./response-code.ts"

export const HEADER_BYTES = 10

/** The empty auth value of keys, NV indices and unclaimed hierarchies. */
export const EMPTY_AUTH: Uint8Array = new Uint8Array(0)

export interface TpmCommand<R> {
  /** The specification's name, for errors. */
  name: string
  /** TPM_CC. */
  code: number
  handles?: readonly number[]
  /** Auth values for the first `auths.length` handles. */
  auths?: readonly Uint8Array[]
  parameters?: Uint8Array
  /** Whether the response has a handle. */
  returnsHandle?: boolean
  /** Decodes the response's parameters; the frame checks that nothing is left. */
  decode(parameters: ByteReader, handle: number): R
}

/** For commands whose response has no parameters. */
export function decodeNothing(): void {}

/** The bytes of a command. @throws MvmError `too_large` above 4096 bytes. */
export function encodeCommand(command: TpmCommand<unknown>): Uint8Array {
  const auths = command.auths ?? []
  const body = new TpmWriter()
  for (const handle of command.handles ?? []) body.u32(handle)
  if (auths.length > 0) {
    const sessions = new TpmWriter()
    for (const auth of auths) sessions.u32(TPM_RS_PW).tpm2b(EMPTY_AUTH).u8(0).tpm2b(auth)
    const area = sessions.done()
    body.u32(area.length).bytes(area)
  }
  const tail = body.bytes(command.parameters ?? EMPTY_AUTH).done()
  const sizeBytes = HEADER_BYTES + tail.length
  if (sizeBytes > MAX_TPM_MESSAGE_BYTES) {
    throw new MvmError("too_large", `${command.name}: command of ${sizeBytes} bytes, at most 4096 allowed`)
  }
  const tag = auths.length > 0 ? TPM_ST.SESSIONS : TPM_ST.NO_SESSIONS
  return new TpmWriter().u16(tag).u32(sizeBytes).u32(command.code).bytes(tail).done()
}

/**
 * The result of `command` from the bytes of its response.
 *
 * Trust: response bytes come from a TPM process; every length is checked and nothing may trail.
 *
 * @throws TpmResponseError when the TPM refused, MvmError `tpm` when the response is malformed.
 */
export function decodeResponse<R>(command: TpmCommand<R>, response: Uint8Array): R {
  const reader = new ByteReader(response, `${command.name} response`, "tpm")
  const tag = reader.u16be("tag")
  const responseSize = reader.u32be("responseSize")
  const rc = reader.u32be("responseCode")
  if (responseSize !== response.length) {
    throw reader.error("responseSize", `says ${responseSize} bytes, got ${response.length}`)
  }
  if (rc !== TPM_RC_SUCCESS) {
    if (tag !== TPM_ST.NO_SESSIONS && tag !== TPM_ST.RSP_COMMAND) {
      throw reader.error("tag", `0x${tag.toString(16)} with an error`)
    }
    reader.end()
    throw new TpmResponseError(command.name, rc)
  }
  const sessionCount = command.auths?.length ?? 0
  const expectedTag = sessionCount > 0 ? TPM_ST.SESSIONS : TPM_ST.NO_SESSIONS
  if (tag !== expectedTag) throw reader.error("tag", `0x${tag.toString(16)} is not the command's`)
  const handle = command.returnsHandle ? reader.u32be("handle") : 0
  const lengthBytes = sessionCount > 0 ? reader.u32be("parameterSize") : reader.remaining
  const parameters = new ByteReader(
    reader.bytes(lengthBytes, "parameters"),
    `${command.name} response`,
    "tpm",
  )
  const result = command.decode(parameters, handle)
  parameters.end()
  for (let i = 0; i < sessionCount; i++) readPasswordSession(reader, `session[${i}]`)
  reader.end()
  return result
}

/** A password session's answer is fixed: no nonce, no hmac, continueSession set. @spec Part 1 §19.4 */
function readPasswordSession(reader: ByteReader, field: string): void {
  const nonceBytes = reader.u16be(`${field}.nonceTPM.size`)
  const attributes = reader.u8(`${field}.sessionAttributes`)
  const hmacBytes = reader.u16be(`${field}.hmac.size`)
  if (nonceBytes !== 0) throw reader.error(`${field}.nonceTPM.size`, `${nonceBytes} where 0 is expected`)
  if (attributes !== 1) throw reader.error(`${field}.sessionAttributes`, `${attributes} where 1 is expected`)
  if (hmacBytes !== 0) throw reader.error(`${field}.hmac.size`, `${hmacBytes} where 0 is expected`)
}
