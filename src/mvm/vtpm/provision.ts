/**
 * @module mvm/vtpm/provision
 *
 * Makes a VM's vTPM before the VM ever starts: keys made inside it under the platform hierarchy, the MVM's public
 * key pinned in NV, sha256 the only PCR bank, and the other hierarchies locked under random values. Step 3 of the
 * method: the private halves exist nowhere else.
 *
 * @spec TPM 2.0 Part 1 §13 (hierarchies), Part 3 §24
 */

import { readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { random } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { initTpm } from "../../platform/swtpm-control.ts"
import { PCR_COUNT, TPM_ALG } from "../../tpm/constants.ts"
import { KEY_HANDLES, type KeyName } from "../../tpm/handles.ts"
import { keyTemplate } from "../../tpm/templates.ts"
import type { PublicKeyInfo, Tpm } from "../../tpm/tpm.ts"
import { type VtpmNames, checkVtpm } from "./check.ts"
import { definePin } from "./pin.ts"
import { type VtpmPlace, prepareVtpmDirectories, withVtpm } from "./session.ts"

const AUTH_BYTES = 32

/** First handle of the platform's persistent range. */
const PLATFORM_PERSISTENT = 0x81800000

/** Bounds on guessing owner-side auth values; the keys made here are exempt (noDA) and keep working. */
const LOCKOUT = { maxTries: 32, recoveryTimeSeconds: 600, lockoutRecoverySeconds: 86_400 }

export interface ProvisionedVtpm {
  /** 65-byte SEC1 points. */
  keys: { attestation: Uint8Array; identity: Uint8Array; sealing: Uint8Array }
  /** 34-byte TPM Names. */
  names: VtpmNames
  /** 32 bytes each: secrets of the MVM. */
  auths: { owner: Uint8Array; endorsement: Uint8Array; lockout: Uint8Array }
}

export interface ProvisionOptions extends VtpmPlace {
  /** 65-byte SEC1 P-256 point. */
  mvmPublicKey: Uint8Array
}

/**
 * Provisions the vTPM in `stateDir`, which is empty or holds a TPM that nobody provisioned yet. After a failure no
 * process is left, nor any state that was not there before.
 *
 * @throws MvmError `exists` (already provisioned), `setup`, `state_key`, `swtpm`, `tpm`, `state`
 */
export async function provisionVtpm(options: ProvisionOptions): Promise<ProvisionedVtpm> {
  prepareVtpmDirectories(options)
  const before = new Set(readdirSync(options.stateDir))
  try {
    return await withVtpm(options, async ({ tpm, controlSocket }) => {
      await requireUnprovisioned(tpm, options.stateDir)
      await allocateSha256(tpm)
      await tpm.shutdown()
      await initTpm(controlSocket)
      await tpm.startup()
      return await provision(tpm, options.mvmPublicKey)
    })
  } catch (error) {
    for (const name of readdirSync(options.stateDir)) {
      if (!before.has(name)) rmSync(join(options.stateDir, name), { force: true })
    }
    throw error
  }
}

async function provision(tpm: Tpm, mvmPublicKey: Uint8Array): Promise<ProvisionedVtpm> {
  const storage = await makeKey(tpm, "storage")
  const attestation = await makeKey(tpm, "attestation")
  const identity = await makeKey(tpm, "identity")
  const sealing = await makeKey(tpm, "sealing")
  await definePin(tpm, mvmPublicKey)
  const auths = await lockHierarchies(tpm)
  const names = {
    storage: storage.name,
    attestation: attestation.name,
    identity: identity.name,
    sealing: sealing.name,
  }
  await checkVtpm(tpm, names)
  return {
    keys: { attestation: attestation.point, identity: identity.point, sealing: sealing.point },
    names,
    auths,
  }
}

async function requireUnprovisioned(tpm: Tpm, stateDir: string): Promise<void> {
  if ((await tpm.getHandles(PLATFORM_PERSISTENT)).length > 0) {
    throw new MvmError("exists", `the vtpm in ${stateDir} is provisioned already`)
  }
}

/** Takes effect at the TPM reset that follows. */
async function allocateSha256(tpm: Tpm): Promise<void> {
  const all = Array.from({ length: PCR_COUNT }, (_, index) => index)
  const banks = await tpm.pcrBanks()
  await tpm.pcrAllocate(banks.map(({ hash }) => ({ hash, pcrs: hash === TPM_ALG.SHA256 ? all : [] })))
}

async function makeKey(tpm: Tpm, name: KeyName): Promise<PublicKeyInfo> {
  const { handle, ...key } = await tpm.createPrimary("platform", keyTemplate(name, random(32)))
  await tpm.evictControl("platform", { object: handle, persistent: KEY_HANDLES[name] })
  await tpm.flushContext(handle)
  return key
}

/** Lockout last: until then its empty auth value authorises the commands before. */
async function lockHierarchies(tpm: Tpm): Promise<ProvisionedVtpm["auths"]> {
  const auths = { owner: random(AUTH_BYTES), endorsement: random(AUTH_BYTES), lockout: random(AUTH_BYTES) }
  await tpm.dictionaryAttackParameters(LOCKOUT)
  await tpm.clearControl(true)
  await tpm.hierarchyChangeAuth("owner", auths.owner)
  await tpm.hierarchyChangeAuth("endorsement", auths.endorsement)
  await tpm.hierarchyChangeAuth("lockout", auths.lockout)
  return auths
}
