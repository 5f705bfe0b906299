/**
 * @module mvm/state/state-keys
 *
 * The master state key and everything derived from it. The key is 32 random bytes in a file of its own, beside
 * the state or wherever the operator keeps it; each purpose gets its own key by HKDF under its own label.
 *
 * Not here: changing the master key, and keys held by a hardware module.
 *
 * @spec RFC 5869
 */

import { join } from "node:path"
import { concat, equalBytes } from "../../lib/bytes.ts"
import {
  AES256_KEY_BYTES,
  aes256gcmOpen,
  aes256gcmSeal,
  GCM_NONCE_BYTES,
  hkdfExpand,
  hkdfExtract,
  P256_PRIVATE_BYTES,
  p256Generate,
  p256PublicKey,
  p256Signer,
  random,
} from "../../lib/crypto.ts"
import { encodeFields } from "../../lib/encoding.ts"
import { MvmError } from "../../lib/errors.ts"
import { readWhole, writeDurably } from "../../platform/durable-file.ts"

export const KEY_FILE = "state.key"
export const CHECK_FILE = "state.check"
export const IDENTITY_FILE = "identity.key"

const MAX_SMALL_FILE = 4096
const SALT = new TextEncoder().encode("mvm state v1")

/** The MVM's own identity. The private half never leaves this object. */
export interface Identity {
  /** 65-byte uncompressed P-256 point. */
  readonly publicKey: Uint8Array
  /** 64-byte r || s over SHA-256 of `message`. */
  sign(message: Uint8Array): Uint8Array
}

/** Keys derived from the master key; the master key itself stays inside. */
export class StateKeys {
  readonly #prk: Uint8Array

  constructor(masterKey: Uint8Array) {
    this.#prk = hkdfExtract(SALT, masterKey)
  }

  /** The 32-byte key for `purpose` and `subject`. */
  derive(purpose: string, subject: string): Uint8Array {
    return hkdfExpand(this.#prk, encodeFields("mvm state key", [purpose, subject]), AES256_KEY_BYTES)
  }

  /** `nonce || ciphertext || tag`, bound to `purpose` and `subject`. */
  seal(purpose: string, subject: string, plaintext: Uint8Array): Uint8Array {
    // A key for each subject, so that 96-bit random nonces stay far from their birthday bound.
    const nonce = random(GCM_NONCE_BYTES)
    const key = this.derive(`seal ${purpose}`, subject)
    return concat(nonce, aes256gcmSeal(key, nonce, boxContext(purpose, subject), plaintext))
  }

  /** @throws MvmError `state_key` when it was not sealed under this master key for this purpose and subject. */
  open(purpose: string, subject: string, sealed: Uint8Array): Uint8Array {
    const nonce = sealed.subarray(0, GCM_NONCE_BYTES)
    const key = this.derive(`seal ${purpose}`, subject)
    try {
      return aes256gcmOpen(key, nonce, boxContext(purpose, subject), sealed.subarray(GCM_NONCE_BYTES))
    } catch (cause) {
      throw new MvmError("state_key", `${purpose}: does not open under this state key`, {
        cause,
        hint: "the state was altered, or belongs to another state key",
      })
    }
  }
}

/**
 * The keys of the state directory at `path`, made on first use.
 *
 * @throws MvmError `state_key` for a missing, malformed, exposed or wrong master key; `no_space`, `io`.
 */
export function openStateKeys(path: string, stateKeyFile: string | undefined): StateKeys {
  const known = knownKeys(path, stateKeyFile)
  const keys = known?.keys ?? makeKeys(join(path, KEY_FILE))
  if (!known?.isChecked) writeDurably(join(path, CHECK_FILE), checkOf(keys))
  return keys
}

/**
 * The keys of the state directory at `path` as they are; undefined where neither key nor state is there yet.
 * `isChecked`: the state was made with this very key. `owner` is the daemon's user, where that is another.
 *
 * @throws MvmError as {@link openStateKeys}. Nothing is written.
 */
export function knownKeys(
  path: string,
  stateKeyFile: string | undefined,
  owner?: number,
): { keys: StateKeys; isChecked: boolean } | undefined {
  const check = readWhole(join(path, CHECK_FILE), { maxBytes: MAX_SMALL_FILE })
  const file = stateKeyFile ?? join(path, KEY_FILE)
  const masterKey = readMasterKey(file, owner)
  if (!masterKey) {
    if (stateKeyFile) {
      throw new MvmError("state_key", `${file}: there is no such state key file`, {
        hint: `make one for a new state directory: (umask 077; head -c 32 /dev/urandom > ${file})`,
      })
    }
    if (!check) return undefined
    throw new MvmError(
      "state_key",
      `${file}: the state key is gone, and the state cannot be opened without it`,
      {
        hint: "restore that file, or name the file that holds the key with --state-key",
      },
    )
  }
  const keys = new StateKeys(masterKey)
  masterKey.fill(0)
  if (check && !equalBytes(check, checkOf(keys))) {
    throw new MvmError("state_key", `${file}: not the key this state directory was made with`, {
      hint: "name the right file with --state-key, or start with another --state",
    })
  }
  return { keys, isChecked: check !== undefined }
}

/** The MVM's identity from the state directory at `path`, made on first use. @throws MvmError `state_key`, `io`. */
export function openIdentity(path: string, keys: StateKeys): Identity {
  const file = join(path, IDENTITY_FILE)
  const sealed = readWhole(file, { maxBytes: MAX_SMALL_FILE })
  const privateKey = sealed ? keys.open("mvm identity", "", sealed) : p256Generate().privateKey
  if (privateKey.length !== P256_PRIVATE_BYTES) {
    throw new MvmError("state", `${file}: expected a key of ${P256_PRIVATE_BYTES} bytes`)
  }
  const publicKey = p256PublicKey(privateKey)
  if (!sealed) writeDurably(file, keys.seal("mvm identity", "", privateKey))
  return { publicKey, sign: p256Signer(privateKey) }
}

function readMasterKey(file: string, owner: number | undefined): Uint8Array | undefined {
  let key: Uint8Array | undefined
  try {
    key = readWhole(file, { maxBytes: MAX_SMALL_FILE, secret: true, owner })
  } catch (cause) {
    const { message, hint } = cause as MvmError
    throw new MvmError("state_key", message, { hint, cause })
  }
  if (key && key.length !== AES256_KEY_BYTES) {
    throw new MvmError("state_key", `${file}: expected ${AES256_KEY_BYTES} bytes, found ${key.length}`, {
      hint: "the file holds the raw key and nothing else, not even a newline",
    })
  }
  return key
}

function makeKeys(file: string): StateKeys {
  const masterKey = random(AES256_KEY_BYTES)
  writeDurably(file, masterKey)
  const keys = new StateKeys(masterKey)
  masterKey.fill(0)
  return keys
}

function checkOf(keys: StateKeys): Uint8Array {
  return keys.derive("key check", "")
}

function boxContext(purpose: string, subject: string): Uint8Array {
  return encodeFields("mvm state box v1", [purpose, subject])
}
