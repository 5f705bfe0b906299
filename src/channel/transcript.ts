/**
 * @module channel/transcript
 *
 * The messages that identity keys sign while a channel opens and ends, and the transcript that binds its keys.
 * Every one has a label of its own, so that a signature made for one can never pass for another; none of them can
 * be a TPMS_ATTEST, which starts with TPM_GENERATED_VALUE and not with a short length.
 */

import { equalBytes } from "../lib/bytes.ts"
import { sha256 } from "../lib/crypto.ts"
import { encodeFields } from "../lib/encoding.ts"

/** Ring 0 carries what the asker sends, ring 1 what the answerer sends. */
export type Direction = 0 | 1

export interface Request {
  /** 16 bytes: the pseudo-address */
  readonly laddress: Uint8Array
  /** 16 bytes */
  readonly targetUuid: Uint8Array
  readonly service: string
  /** 32-byte X25519 public key of the asker */
  readonly share: Uint8Array
  /** 32 bytes, from ALLOCATED */
  readonly nonce: Uint8Array
  /** 16 bytes, from WELCOME */
  readonly epoch: Uint8Array
  readonly program: { readonly path: string; readonly digest: Uint8Array; readonly uid: number }
}

export interface Transcript {
  /** DECISION, word for word as the MVM signed it */
  readonly decision: Uint8Array
  readonly laddress: Uint8Array
  readonly service: string
  readonly askerShare: Uint8Array
  readonly answererShare: Uint8Array
}

export interface EndOfDirection {
  readonly channelId: Uint8Array
  readonly direction: number
  /** Plaintext bytes */
  readonly lengthBytes: number
  /** All records of the direction, the first (the signature) and the last (EOF) included */
  readonly records: number
  /** 32 bytes: SHA-256 over every record's header and tag */
  readonly digest: Uint8Array
  /** 32 bytes: SHA-256 of the content, where the decision asks for it */
  readonly content?: Uint8Array | undefined
}

/** Whether two statements are of the same records and content; who made them is for their signatures. */
export function sameContent(a: Covered, b: Covered): boolean {
  return (
    a.lengthBytes === b.lengthBytes &&
    a.records === b.records &&
    equalBytes(a.digest, b.digest) &&
    equalBytes(a.content ?? NOTHING, b.content ?? NOTHING)
  )
}

type Covered = Pick<EndOfDirection, "lengthBytes" | "records" | "digest" | "content">

const NOTHING = new Uint8Array(0)

/** What the asker's identity key signs in REQUEST: step 4 of the method. */
export function requestMessage(request: Request): Uint8Array {
  const { laddress, targetUuid, service, share, nonce, epoch, program } = request
  return encodeFields("mvm request v1", [
    laddress,
    targetUuid,
    service,
    share,
    nonce,
    epoch,
    program.path,
    program.digest,
    program.uid,
  ])
}

/** 32 bytes that stand for everything both ends must agree on. */
export function transcriptHash(transcript: Transcript): Uint8Array {
  const { decision, laddress, service, askerShare, answererShare } = transcript
  return sha256(encodeFields("mvm transcript v1", [decision, laddress, service, askerShare, answererShare]))
}

/** What the answerer's identity key signs: in ACCEPT, and again as its first record. */
export function acceptMessage(transcript: Uint8Array): Uint8Array {
  return encodeFields("mvm accept v1", [transcript])
}

/** What the asker's identity key signs, as its first record: the transcript and the answerer's signature on it. */
export function openMessage(transcript: Uint8Array, acceptSignature: Uint8Array): Uint8Array {
  return encodeFields("mvm open v1", [transcript, acceptSignature])
}

/** What the sender's identity key signs in FIN. */
export function finMessage(end: EndOfDirection): Uint8Array {
  return endMessage("mvm fin v1", end)
}

/** What the receiver's identity key signs in RECEIPT: the same facts, as the receiver found them. */
export function receiptMessage(end: EndOfDirection): Uint8Array {
  return endMessage("mvm receipt v1", end)
}

function endMessage(label: string, end: EndOfDirection): Uint8Array {
  const { channelId, direction, lengthBytes, records, digest, content } = end
  const coverage = content === undefined ? "records" : "records and content"
  return encodeFields(label, [
    channelId,
    direction,
    lengthBytes,
    records,
    coverage,
    digest,
    content ?? new Uint8Array(0),
  ])
}
