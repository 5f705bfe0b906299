/**
 * @module tcb/link-handshake
 *
 * How a link is authenticated: X25519 between agent and MVM, the MVM's signature over everything that was said,
 * made with the key pinned in the VM's vTPM, and one HMAC key a direction. The agent proves nothing here: a
 * link's VM is known by its port, and its software by the quotes that name the epoch.
 */

import { encodeFields } from "../lib/encoding.ts"
import { hkdfExpand, hkdfExtract, sha256 } from "../lib/crypto.ts"

export interface LinkTranscript {
  version: number
  /** 16 bytes */
  vmUuid: Uint8Array
  vmName: string
  /** 16 random bytes, chosen by the MVM for this life of the link. */
  epoch: Uint8Array
  /** 32 bytes */
  guestNonce: Uint8Array
  /** 32-byte X25519 u-coordinates */
  guestShare: Uint8Array
  mvmShare: Uint8Array
  /** 16 bytes: the guest's claimed boot id */
  bootId: Uint8Array
  /** SHA-256 over the digests of what the MVM itself runs */
  mvmMeasurement: Uint8Array
}

export interface LinkKeys {
  toGuest: Uint8Array
  toMvm: Uint8Array
}

/** The bytes the MVM signs in WELCOME. */
export function welcomeMessage(transcript: LinkTranscript): Uint8Array {
  return encodeFields("mvm link v1", [
    transcript.version,
    transcript.vmUuid,
    transcript.vmName,
    transcript.epoch,
    transcript.guestNonce,
    transcript.guestShare,
    transcript.mvmShare,
    transcript.bootId,
    transcript.mvmMeasurement,
  ])
}

/**
 * The link's HMAC keys, 32 bytes each, for the caller to wipe once they are in use.
 *
 * @param shared 32-byte X25519 shared secret; wiped
 * @spec RFC 5869
 */
export function linkKeys(shared: Uint8Array, transcript: LinkTranscript): LinkKeys {
  const salt = sha256(welcomeMessage(transcript))
  const prk = hkdfExtract(salt, shared)
  const okm = hkdfExpand(prk, encodeFields("mvm link keys v1", []), 64)
  const keys = { toGuest: okm.slice(0, 32), toMvm: okm.slice(32, 64) }
  for (const secret of [shared, prk, okm]) secret.fill(0)
  return keys
}
