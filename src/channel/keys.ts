/**
 * @module channel/keys
 *
 * From two X25519 shares and the transcript to one key a direction. Each end holds them in one process and stores
 * them nowhere; the shares are made for one channel, so recorded memory cannot be opened later with any long-term
 * key.
 */

import { utf8 } from "../lib/bytes.ts"
import {
  AES256_KEY_BYTES,
  aes256Key,
  hkdfExpand,
  hkdfExtract,
  x25519Shared,
  type Aes256Key,
} from "../lib/crypto.ts"
import { encodeFields } from "../lib/encoding.ts"

/** A direction's key moves on after so many records. */
export const RECORDS_PER_KEY = 2 ** 20

/** One key for each direction, 32 bytes. */
export interface ChannelKeys {
  /** Seals what the asker sends. */
  readonly askerToAnswerer: Uint8Array
  /** Seals what the answerer sends. */
  readonly answererToAsker: Uint8Array
}

/**
 * Extract with the transcript hash as salt, then expand once a direction: two ends that saw different decisions,
 * addresses or shares get unrelated keys. What lies between is wiped; shares and keys are the caller's to wipe.
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
  const shared = x25519Shared(ownPrivateShare, peerShare)
  const prk = hkdfExtract(transcript, shared)
  shared.fill(0)
  const key = (direction: string): Uint8Array =>
    hkdfExpand(prk, encodeFields("mvm channel key v1", [direction, transcript]), AES256_KEY_BYTES)
  const keys = { askerToAnswerer: key("asker to answerer"), answererToAsker: key("answerer to asker") }
  prk.fill(0)
  return keys
}

/** K' = HKDF-Expand(K, "rekey"): nobody who later learns K' gets back to K. */
export function nextKey(key: Uint8Array): Uint8Array {
  return hkdfExpand(key, utf8("rekey"), AES256_KEY_BYTES)
}

/** The key of one direction as its records go by: it only ever moves on, and what it was is wiped. */
export class DirectionKey {
  #bytes: Uint8Array
  #key: Aes256Key | undefined
  #generation = 0

  /** @param key 32 bytes, this direction's alone; copied */
  constructor(key: Uint8Array) {
    this.#bytes = key.slice()
    this.#key = aes256Key(this.#bytes)
  }

  /** The key of the record with this number. Numbers must not go back past a change of the key. */
  at(sequence: number): Aes256Key {
    const generation = Math.floor(sequence / RECORDS_PER_KEY)
    while (this.#key !== undefined && this.#generation < generation) this.#advance()
    if (this.#key === undefined) throw new RangeError("the key was wiped")
    return this.#key
  }

  get isWiped(): boolean {
    return this.#key === undefined
  }

  /** The direction is over. The runtime's own copy goes when the collector finds that nobody holds it. */
  wipe(): void {
    this.#bytes.fill(0)
    this.#key = undefined
  }

  #advance(): void {
    const next = nextKey(this.#bytes)
    this.#bytes.fill(0)
    this.#bytes = next
    this.#key = aes256Key(next)
    this.#generation++
  }
}
