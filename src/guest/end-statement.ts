/**
 * @module guest/end-statement
 *
 * What an end of a channel states of a direction that is over, and what it makes of the other end's statement.
 */

import { MvmError, STATUS } from "../lib/errors.ts"
import { sameContent } from "../channel/transcript.ts"
import type { EndStatement } from "./agent-client.ts"
import type { ChannelEnd } from "./channel-end.ts"

/** The direction in which this end sends. @param content SHA-256 of what was sent, where the decision asks for it */
export function sentStatement(end: ChannelEnd, content: Uint8Array | undefined): EndStatement {
  return {
    direction: end.sendDirection,
    lengthBytes: end.sealer.plaintextBytes,
    records: end.sealer.chain.records,
    digest: end.sealer.chain.digest(),
    content,
  }
}

/** The direction in which the other end sends. @param content as for {@link sentStatement} */
export function receivedStatement(end: ChannelEnd, content: Uint8Array | undefined): EndStatement {
  return {
    direction: end.sendDirection === 0 ? 1 : 0,
    lengthBytes: end.opener.plaintextBytes,
    records: end.opener.chain.records,
    digest: end.opener.chain.digest(),
    content,
  }
}

/** @throws MvmError `digest_mismatch` when the sender's FIN is not about what was received. */
export function compareFin(fin: EndStatement, seen: EndStatement): void {
  if (isSame(fin, seen)) return
  throw new MvmError("digest_mismatch", "the sender's digest differs from what was received")
}

/** @throws MvmError `digest_mismatch` when the RECEIPT is not about what was sent. */
export function compareReceipt(receipt: EndStatement, said: EndStatement): void {
  if (isSame(said, receipt)) return
  throw new MvmError("digest_mismatch", "the receipt names other content than what was sent")
}

/** Failures that say what happened stay; those that only say that nobody answered leave the outcome open. */
export function withoutReceipt(error: MvmError): MvmError {
  const isSilence = error.status === STATUS.unreachable || error.code === "lease_expired"
  if (!isSilence || error.code === "peer_failed") return error
  return new MvmError("unknown_outcome", `everything was sent, but no receipt came: ${error.message}`, {
    cause: error,
    hint: "outcome unknown: ask the receiver, or send again",
  })
}

function isSame(a: EndStatement, b: EndStatement): boolean {
  return a.direction === b.direction && sameContent(a, b)
}
