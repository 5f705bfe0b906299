/**
 * @module mvm/vtpm/pin
 *
 * The MVM's public key in the vTPM's NV: the guest reads it to know its MVM and, without platform authorisation,
 * cannot write or remove it.
 */

import { MvmError } from "../../lib/errors.ts"
import { TPMA_NV } from "../../tpm/constants.ts"
import { MVM_KEY_NV_INDEX } from "../../tpm/handles.ts"
import { TpmResponseError } from "../../tpm/response-code.ts"
import type { Tpm } from "../../tpm/tpm.ts"

const POINT_BYTES = 65

const PIN_ATTRIBUTES =
  TPMA_NV.PPWRITE |
  TPMA_NV.PPREAD |
  TPMA_NV.OWNERREAD |
  TPMA_NV.AUTHREAD |
  TPMA_NV.NO_DA |
  TPMA_NV.PLATFORMCREATE

/** @param mvmPublicKey 65-byte SEC1 point */
export async function definePin(tpm: Tpm, mvmPublicKey: Uint8Array): Promise<void> {
  requirePoint(mvmPublicKey)
  await tpm.nvDefine({
    nvIndex: MVM_KEY_NV_INDEX,
    attributes: PIN_ATTRIBUTES,
    authPolicy: new Uint8Array(0),
    dataSizeBytes: POINT_BYTES,
  })
  await tpm.nvWrite(MVM_KEY_NV_INDEX, mvmPublicKey)
}

/**
 * Writes the key again, whatever is there. The index itself must be as it was defined: another one would mean that
 * somebody had the platform hierarchy.
 *
 * @throws MvmError `state`
 */
export async function rewritePin(tpm: Tpm, mvmPublicKey: Uint8Array): Promise<void> {
  requirePoint(mvmPublicKey)
  const nv = await tpm.nvReadPublic(MVM_KEY_NV_INDEX).catch((cause: unknown) => {
    if (cause instanceof TpmResponseError) throw altered("missing", cause)
    throw cause
  })
  const isAsDefined =
    (nv.attributes & ~TPMA_NV.WRITTEN) === PIN_ATTRIBUTES &&
    nv.dataSizeBytes === POINT_BYTES &&
    nv.authPolicy.length === 0
  if (!isAsDefined) throw altered("not as the mvm defined it")
  await tpm.nvWrite(MVM_KEY_NV_INDEX, mvmPublicKey)
}

function altered(what: string, cause?: unknown): MvmError {
  return new MvmError("state", `vtpm pinned mvm key: its nv index is ${what}`, {
    hint: "the vtpm was changed outside the mvm; remove the vm and create it again",
    cause,
  })
}

function requirePoint(mvmPublicKey: Uint8Array): void {
  if (mvmPublicKey.length !== POINT_BYTES) {
    throw new MvmError("internal", `mvm public key: ${mvmPublicKey.length} bytes, ${POINT_BYTES} expected`)
  }
}
