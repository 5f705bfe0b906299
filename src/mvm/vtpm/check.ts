/**
 * @module mvm/vtpm/check
 *
 * What a vTPM must still be before its VM may have it: the same keys by their Names, hierarchies locked, sha256
 * the only PCR bank. A guest that got at the platform hierarchy (by S3, say) shows here.
 *
 * @spec TPM 2.0 Part 2 §6.13 (TPM_PT_PERMANENT), §8.6 (TPMA_PERMANENT), Part 1 §16 (Names)
 */

import { equalBytes } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { TPM_ALG } from "../../tpm/constants.ts"
import { KEY_HANDLES, type KeyName } from "../../tpm/handles.ts"
import { TpmResponseError } from "../../tpm/response-code.ts"
import { matchesTemplate } from "../../tpm/templates.ts"
import type { PublicKeyInfo, Tpm } from "../../tpm/tpm.ts"

const TPM_PT_PERMANENT = 0x200

/** TPMA_PERMANENT: ownerAuthSet, endorsementAuthSet, lockoutAuthSet, disableClear. */
const LOCKED = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 8)

const ALTERED_HINT = "the vtpm is not the one the mvm provisioned; remove the vm and create it again"

/** 34-byte TPM Names of the four persistent keys. */
export type VtpmNames = Record<KeyName, Uint8Array>

/** @throws MvmError `state` naming the first thing that is not as provisioned */
export async function checkVtpm(tpm: Tpm, names: VtpmNames): Promise<void> {
  for (const name of Object.keys(KEY_HANDLES) as KeyName[]) {
    const key = await readKey(tpm, name)
    if (!equalBytes(key.name, names[name])) {
      throw new MvmError("state", `vtpm key ${name}: its name differs from the registered one`, {
        hint: ALTERED_HINT,
      })
    }
  }
  const permanent = (await tpm.getProperty(TPM_PT_PERMANENT)) ?? 0
  if ((permanent & LOCKED) !== LOCKED) {
    throw new MvmError("state", "vtpm hierarchies: not locked any more", { hint: ALTERED_HINT })
  }
  const active = (await tpm.pcrBanks()).filter((bank) => bank.pcrs.length > 0)
  if (active.length !== 1 || active[0]!.hash !== TPM_ALG.SHA256) {
    throw new MvmError("state", "vtpm pcr banks: sha256 is not the only one", { hint: ALTERED_HINT })
  }
}

/** A persistent key with the attributes of its template. @throws MvmError `state` */
export async function readKey(tpm: Tpm, name: KeyName): Promise<PublicKeyInfo> {
  const key = await tpm.readPublic(KEY_HANDLES[name]).catch((cause: unknown) => {
    if (!(cause instanceof TpmResponseError)) throw cause
    throw new MvmError("state", `vtpm key ${name}: missing`, { hint: ALTERED_HINT, cause })
  })
  if (!matchesTemplate(name, key.key)) {
    throw new MvmError("state", `vtpm key ${name}: another kind of key`, { hint: ALTERED_HINT })
  }
  return key
}
