/**
 * @module tpm/commands-nv
 *
 * NV commands for ordinary indices.
 *
 * @spec TPM 2.0 Part 3 §31.3 (NV_DefineSpace), §31.6 (NV_ReadPublic), §31.7 (NV_Write), §31.13 (NV_Read)
 */

import { EMPTY_AUTH, decodeNothing, type TpmCommand } from "./command.ts"
import { TPM_CC } from "./constants.ts"
import { TpmWriter, readTpm2b } from "./marshal.ts"
import { type NvPublic, decodeNvPublic, encodeNvPublic } from "./nv-public.ts"

/** Bytes read or written in one command; every TPM takes at least this many. */
export const NV_CHUNK_BYTES = 512

const MAX_NV_PUBLIC_BYTES = 96
const MAX_NAME_BYTES = 66

/** @param hierarchy TPM_RH_OWNER or TPM_RH_PLATFORM. @spec Part 3 §31.3 */
export function nvDefineCommand(hierarchy: number, nv: NvPublic, auth: Uint8Array): TpmCommand<void> {
  return {
    name: "TPM2_NV_DefineSpace",
    code: TPM_CC.NV_DEFINE_SPACE,
    handles: [hierarchy],
    auths: [auth],
    parameters: new TpmWriter().tpm2b(EMPTY_AUTH).tpm2b(encodeNvPublic(nv)).done(),
    decode: decodeNothing,
  }
}

/** @spec Part 3 §31.6 */
export function nvReadPublicCommand(index: number): TpmCommand<NvPublic> {
  return {
    name: "TPM2_NV_ReadPublic",
    code: TPM_CC.NV_READ_PUBLIC,
    handles: [index],
    decode: (reader) => {
      const nvPublic = decodeNvPublic(readTpm2b(reader, "nvPublic", MAX_NV_PUBLIC_BYTES))
      readTpm2b(reader, "nvName", MAX_NAME_BYTES)
      if (nvPublic.nvIndex !== index) throw reader.error("nvPublic.nvIndex", "another index")
      return nvPublic
    },
  }
}

/** @param authHandle a hierarchy or the index itself. @spec Part 3 §31.7 */
export function nvWriteCommand(
  { authHandle, index, auth }: { authHandle: number; index: number; auth: Uint8Array },
  data: Uint8Array,
  offset: number,
): TpmCommand<void> {
  return {
    name: "TPM2_NV_Write",
    code: TPM_CC.NV_WRITE,
    handles: [authHandle, index],
    auths: [auth],
    parameters: new TpmWriter().tpm2b(data).u16(offset).done(),
    decode: decodeNothing,
  }
}

/** Authorised by the index's own empty auth value (AUTHREAD). @spec Part 3 §31.13 */
export function nvReadCommand(index: number, sizeBytes: number, offset: number): TpmCommand<Uint8Array> {
  return {
    name: "TPM2_NV_Read",
    code: TPM_CC.NV_READ,
    handles: [index, index],
    auths: [EMPTY_AUTH],
    parameters: new TpmWriter().u16(sizeBytes).u16(offset).done(),
    decode: (reader) => {
      const data = readTpm2b(reader, "data", NV_CHUNK_BYTES)
      if (data.length !== sizeBytes) throw reader.error("data.size", `${data.length}, ${sizeBytes} asked for`)
      return data
    },
  }
}
