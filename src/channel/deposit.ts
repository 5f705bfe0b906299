/**
 * @module channel/deposit
 *
 * What is signed and bound when content is left for a VM that is not there yet: the method in its original form. The
 * content is sealed under a random key; the MVM keeps the records and hashes them itself; the key waits, encrypted
 * to the target's vTPM, until the target has been appraised.
 *
 * Not here: forward secrecy. Whoever gets the target's sealing key and the stored records can open them.
 */

import { concat } from "../lib/bytes.ts"
import { sha256 } from "../lib/crypto.ts"
import { encodeFields } from "../lib/encoding.ts"

/** What the records of a deposit belong to, so that none opens in another's place. */
export interface DepositPlace {
  /** 16 bytes */
  readonly depositId: Uint8Array
  /** 16 bytes: the pseudo-address */
  readonly laddress: Uint8Array
  /** 16 bytes */
  readonly targetUuid: Uint8Array
  readonly service: string
}

/** What the depositing VM vouches for: step 4 of the method, with the hash of the message. */
export interface DepositClaim extends DepositPlace {
  /** Plaintext bytes */
  readonly lengthBytes: number
  /** Bytes of all records, heads included */
  readonly storedBytes: number
  readonly records: number
  /** 32 bytes: SHA-256 over all records as they are stored */
  readonly hash: Uint8Array
  /** The key and the pseudo-address, encrypted to the target */
  readonly sealedKey: Uint8Array
  /** 32 bytes, from DEPOSITING */
  readonly nonce: Uint8Array
  /** 16 bytes, from WELCOME */
  readonly epoch: Uint8Array
  readonly program: { readonly path: string; readonly digest: Uint8Array; readonly uid: number }
}

/** What the depositing VM's identity key signs. */
export function depositMessage(claim: DepositClaim): Uint8Array {
  const { depositId, laddress, targetUuid, service, lengthBytes, storedBytes, records, hash } = claim
  return encodeFields("mvm deposit v1", [
    laddress,
    depositId,
    targetUuid,
    service,
    lengthBytes,
    storedBytes,
    records,
    hash,
    sha256(claim.sealedKey),
    claim.nonce,
    claim.epoch,
    claim.program.path,
    claim.program.digest,
    claim.program.uid,
  ])
}

/** The 64 bytes of the first record: where the others belong. */
export function depositHandshake({ depositId, laddress, targetUuid, service }: DepositPlace): Uint8Array {
  return concat(
    sha256(encodeFields("mvm deposit records v1", [depositId, laddress, targetUuid, service])),
    depositId,
    laddress,
  )
}
