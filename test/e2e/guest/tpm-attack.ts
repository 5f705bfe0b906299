/**
 * @module test/e2e/guest/tpm-attack
 *
 * What a hostile root tries against its own vTPM, through the device the kernel gives it: one attempt a line of the
 * table, all against a TPM that firmware has started. Prints one JSON object: what the TPM answered to each, and an
 * attest made up here with the signature that the identity key gave for it.
 *
 *   bun tpm-attack.js
 */

import { sha256 } from "../../../src/lib/crypto.ts"
import { EMPTY_AUTH, decodeNothing } from "../../../src/tpm/command.ts"
import { nvDefineCommand, nvWriteCommand } from "../../../src/tpm/commands-nv.ts"
import { TPMA_NV, TPM_CC, TPM_RH } from "../../../src/tpm/constants.ts"
import { openTpmDevice } from "../../../src/tpm/device-transport.ts"
import { KEY_HANDLES, MVM_KEY_NV_INDEX } from "../../../src/tpm/handles.ts"
import { TpmResponseError } from "../../../src/tpm/response-code.ts"
import { keyTemplate } from "../../../src/tpm/templates.ts"
import { Tpm } from "../../../src/tpm/tpm.ts"

/** @spec TPM 2.0 Part 2 §6.5.2 */
const NV_UNDEFINE_SPACE = 0x122

const tpm = new Tpm(await openTpmDevice())
const otherKey = new Uint8Array(65).fill(4)
const pinned = {
  nvIndex: MVM_KEY_NV_INDEX,
  attributes: TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA,
  authPolicy: EMPTY_AUTH,
  dataSizeBytes: 65,
}

const attempts: Record<string, () => Promise<unknown>> = {
  "clear by the platform": () => run("Clear", TPM_CC.CLEAR, [TPM_RH.PLATFORM]),
  "clear by lockout": () => run("Clear", TPM_CC.CLEAR, [TPM_RH.LOCKOUT]),
  "evict the attestation key as owner": () => evict("owner"),
  "evict the attestation key as platform": () => evict("platform"),
  "undefine the pinned key": () =>
    run("NV_UndefineSpace", NV_UNDEFINE_SPACE, [TPM_RH.PLATFORM, MVM_KEY_NV_INDEX]),
  "define the pinned key anew": () => tpm.execute(nvDefineCommand(TPM_RH.OWNER, pinned, EMPTY_AUTH)),
  "write the pinned key as platform": () => tpm.nvWrite(MVM_KEY_NV_INDEX, otherKey),
  "write the pinned key by its own auth": () => {
    const target = { authHandle: MVM_KEY_NV_INDEX, index: MVM_KEY_NV_INDEX, auth: EMPTY_AUTH }
    return tpm.execute(nvWriteCommand(target, otherKey, 0))
  },
  "reset PCR 10": () => run("PCR_Reset", TPM_CC.PCR_RESET, [10]),
  "take the platform": () => tpm.hierarchyChangeAuth("platform", new Uint8Array(32)),
  "sign with the attestation key": () => tpm.sign(KEY_HANDLES.attestation, sha256(otherKey)),
  "make a key of its own": () =>
    tpm.createPrimary("endorsement", keyTemplate("attestation", new Uint8Array(32))),
}

const outcomes: Record<string, string> = {}
for (const [title, attempt] of Object.entries(attempts)) {
  outcomes[title] = await attempt().then(
    () => "done",
    (error: unknown) => {
      if (error instanceof TpmResponseError) return error.responseCode.name
      throw error
    },
  )
}

// A true quote of this TPM is changed (PCR digest last) and signed with the key that signs anything.
const { attest } = await tpm.quote(KEY_HANDLES.attestation, new Uint8Array(32), [10])
attest.set(sha256(otherKey), attest.length - 32)
const signature = await tpm.sign(KEY_HANDLES.identity, sha256(attest))
console.log(JSON.stringify({ outcomes, attest: attest.toHex(), signature: signature.toHex() }))
tpm.close()

function run(name: string, code: number, handles: number[]): Promise<void> {
  return tpm.execute({ name: `TPM2_${name}`, code, handles, auths: [EMPTY_AUTH], decode: decodeNothing })
}

function evict(hierarchy: "owner" | "platform"): Promise<void> {
  return tpm.evictControl(hierarchy, { object: KEY_HANDLES.attestation, persistent: KEY_HANDLES.attestation })
}
