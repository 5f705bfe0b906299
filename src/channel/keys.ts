/**
 * @module channel/keys
 *
 * From two X25519 shares and the transcript to one key a direction. Each end holds them in one process and stores
 * them nowhere; the shares are made for one channel, so recorded memory cannot be opened later with any long-term
 * key.
 */

import { utf8 } from "../lib/bytes.ts"
import { AES256_KEY_BYTES, hkdfExpand, hkdfExtract, x25519Shared } from "../lib/crypto.ts"
import { encodeFields } from "../lib/encoding.ts"

/** One key for each direction, 32 bytes. */
export interface ChannelKeys {
  /** Seals what the asker sends. */
  readonly askerToAnswerer: Uint8Array
  /** Seals what the answerer sends. */
  readonly answererToAsker: Uint8Array
}

/**
 * Extract with the transcript hash as salt, then expand once a direction: two ends that saw different decisions,
 * addresses or shares get unrelated keys.
 *
 * Trust: `peerShare` comes from the peer by way of the MVM; a low-order one is refused.
 *
 * @param transcript 32 bytes, `transcriptHash`
 * @throws MvmError `protocol`.
 * @spec RFC 5869; RFC 7748 §6.1
 */
export function channelKeys(
  ownPrivateShare: Uint8Array,
  peerShare: Uint8Array,
  transcript: Uint8Array,
): ChannelKeys {
  const prk = hkdfExtract(transcript, x25519Shared(ownPrivateShare, peerShare))
  const key = (direction: string): Uint8Array =>
    hkdfExpand(prk, encodeFields("mvm channel key v1", [direction, transcript]), AES256_KEY_BYTES)
  return { askerToAnswerer: key("asker to answerer"), answererToAsker: key("answerer to asker") }
}

/** K' = HKDF-Expand(K, "rekey"): nobody who later learns K' gets back to K. */
export function nextKey(key: Uint8Array): Uint8Array {
  return hkdfExpand(key, utf8("rekey"), AES256_KEY_BYTES)
}
