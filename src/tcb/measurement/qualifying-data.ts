/**
 * @module tcb/measurement/qualifying-data
 *
 * What a quote is made over besides the PCRs. The label and the fixed encoding keep evidence for one purpose, VM,
 * epoch or request from passing as evidence for another.
 */

import { sha256 } from "../../lib/crypto.ts"
import { encodeFields } from "../../lib/encoding.ts"

export interface EvidenceFields {
  readonly purpose: "request" | "answer" | "periodic"
  /** 32 bytes, chosen by the verifier, used once */
  readonly nonce: Uint8Array
  /** 16 bytes */
  readonly vmUuid: Uint8Array
  /** 16 bytes: the link epoch the evidence belongs to */
  readonly epoch: Uint8Array
  /** 32 bytes: digest of the request or of both shares, see tcb/binding */
  readonly binding: Uint8Array
}

/**
 * The 32-byte qualifyingData of a quote.
 *
 * @throws RangeError for a field of another length.
 */
export function evidenceQualifyingData(fields: EvidenceFields): Uint8Array {
  const { purpose, nonce, vmUuid, epoch, binding } = fields
  requireLength(nonce, 32, "nonce")
  requireLength(vmUuid, 16, "vmUuid")
  requireLength(epoch, 16, "epoch")
  requireLength(binding, 32, "binding")
  return sha256(encodeFields("mvm evidence v1", [purpose, nonce, vmUuid, epoch, binding]))
}

function requireLength(bytes: Uint8Array, lengthBytes: number, field: string): void {
  if (bytes.length !== lengthBytes) throw new RangeError(`evidence.${field}: not ${lengthBytes} bytes`)
}
