/**
 * @module tcb/deposit-key
 *
 * The key of a deposit and its pseudo-address, encrypted by the depositing VM to the target's vTPM key: step 7 of
 * the method. The MVM keeps it and cannot open it.
 *
 * @spec RFC 9180 §6.1 (base mode, single shot)
 */

import { AES256_KEY_BYTES } from "../lib/crypto.ts"
import { decodeFields, encodeFields } from "../lib/encoding.ts"
import { MvmError } from "../lib/errors.ts"
import { hpkeOpen, hpkeSeal, type Recipient } from "./hpke.ts"

const LABEL = "mvm deposit key v1"
const NAMES = ["key", "laddress"] as const
const LADDRESS_BYTES = 16

export interface DepositSecret {
  /** 32 bytes: seals the records, and nothing else ever */
  readonly key: Uint8Array
  /** 16 bytes */
  readonly laddress: Uint8Array
}

/** What the secret belongs to; it opens with exactly this. */
export interface DepositContext {
  readonly depositId: Uint8Array
  readonly targetUuid: Uint8Array
  readonly service: string
}

/** @param targetKey 65-byte P-256 point @throws MvmError `signature` when it is none */
export function sealDepositKey(
  targetKey: Uint8Array,
  context: DepositContext,
  { key, laddress }: DepositSecret,
): Promise<Uint8Array> {
  return hpkeSeal(targetKey, infoOf(context), encodeFields(LABEL, [key, laddress]))
}

/**
 * Trust: `sealed` was kept by the MVM; who made it is shown by the source's signature, which covers it.
 *
 * @throws MvmError `integrity` when it was not sealed to this key for this deposit, `protocol`
 */
export async function openDepositKey(
  recipient: Recipient,
  context: DepositContext,
  sealed: Uint8Array,
): Promise<DepositSecret> {
  const plaintext = await hpkeOpen(recipient, infoOf(context), sealed)
  const { key, laddress } = decodeFields(plaintext, LABEL, NAMES, {
    structure: "deposit key",
    code: "protocol",
  })
  if (key.length !== AES256_KEY_BYTES || laddress.length !== LADDRESS_BYTES) {
    throw new MvmError("protocol", "deposit key: not of its lengths")
  }
  return { key: key.slice(), laddress: laddress.slice() }
}

function infoOf({ depositId, targetUuid, service }: DepositContext): Uint8Array {
  return encodeFields("mvm deposit grant v1", [depositId, targetUuid, service])
}
