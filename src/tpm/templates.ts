/**
 * @module tpm/templates
 *
 * The public areas the four keys of a VM are created from. A primary key is derived from the hierarchy's seed and
 * its template; `unique` is random, so nobody who opens the platform hierarchy later can derive the key again.
 *
 * @spec TPM 2.0 Part 3 §24.1 (TPM2_CreatePrimary), Part 2 §8.3 (TPMA_OBJECT)
 */

import { TPMA_OBJECT } from "./constants.ts"
import type { KeyName } from "./handles.ts"
import type { EccPublic } from "./public.ts"

/** Made inside, never leaves, used with the empty auth value, not subject to dictionary attack lockout. */
const BASE =
  TPMA_OBJECT.fixedTPM |
  TPMA_OBJECT.fixedParent |
  TPMA_OBJECT.sensitiveDataOrigin |
  TPMA_OBJECT.userWithAuth |
  TPMA_OBJECT.noDA

type Purpose = Pick<EccPublic, "attributes" | "symmetric" | "scheme">

const PURPOSES: Readonly<Record<KeyName, Purpose>> = {
  storage: {
    attributes: BASE | TPMA_OBJECT.restricted | TPMA_OBJECT.decrypt,
    symmetric: "aes128cfb",
    scheme: "none",
  },
  // Restricted: it signs a digest only if the TPM made what was hashed, and that starts with TPM_GENERATED_VALUE.
  attestation: {
    attributes: BASE | TPMA_OBJECT.restricted | TPMA_OBJECT.sign,
    symmetric: "none",
    scheme: "ecdsa-sha256",
  },
  identity: { attributes: BASE | TPMA_OBJECT.sign, symmetric: "none", scheme: "ecdsa-sha256" },
  sealing: { attributes: BASE | TPMA_OBJECT.decrypt, symmetric: "none", scheme: "ecdh-sha256" },
}

/** Template of a key. `unique` is 32 random bytes. */
export function keyTemplate(name: KeyName, unique: Uint8Array): EccPublic {
  return { ...PURPOSES[name], authPolicy: new Uint8Array(0), x: unique, y: new Uint8Array(0) }
}

/** Whether a public area a TPM showed has the attributes, scheme and symmetric algorithm of `name`'s template. */
export function matchesTemplate(name: KeyName, key: EccPublic): boolean {
  const purpose = PURPOSES[name]
  return (
    key.attributes === purpose.attributes &&
    key.symmetric === purpose.symmetric &&
    key.scheme === purpose.scheme &&
    key.authPolicy.length === 0
  )
}
