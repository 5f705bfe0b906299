/**
 * @module mvm/channels/answer-of
 *
 * One step of an opening at the answerer's side.
 */

import { MvmError, asMvmError, type ErrorCode } from "../../lib/errors.ts"
import type { Fields, NamedMessage } from "../../wire/link.ts"
import type { Member } from "../member.ts"

/** A decision is used within this time or not at all. */
export const STEP_TIMEOUT_MS = 10_000

/** What a member may say of itself when it cannot go on. */
const OWN_REASONS = new Set<ErrorCode>([
  "no_receiver",
  "refused",
  "busy",
  "timeout",
  "unreachable",
  "aborted",
  "protocol",
])

/**
 * One step of the answerer's: what `take` makes of its answer, as it arrives. Evidence in particular is appraised in
 * the order it was made in, whatever else waits; a quote behind a younger one would look like a clock put back.
 *
 * Trust: a FAILED is in its own words. They must not pass for a finding of the MVM's, about itself or the asker.
 */
export async function answerOf<N extends "CHALLENGE" | "GRANT", A extends "EVIDENCE" | "ACCEPT", T>(
  member: Member,
  name: N,
  fields: Fields<N>,
  answer: A,
  take: (message: NamedMessage<A>) => T,
): Promise<T> {
  let taken: (() => T) | undefined
  const onAnswer = (message: NamedMessage<A>): void => {
    taken = outcomeOf(() => take(message))
  }
  try {
    await member.link.request(name, fields, answer, { timeoutMs: STEP_TIMEOUT_MS, onAnswer })
  } catch (cause) {
    const { code, message } = asMvmError(cause)
    const said = OWN_REASONS.has(code) ? code : "peer_failed"
    throw new MvmError(said, `${member.record.name} could not answer: ${message}`, { cause })
  }
  return taken!()
}

/** Does it now; the result or the failure comes with the call. */
function outcomeOf<T>(work: () => T): () => T {
  try {
    const value = work()
    return () => value
  } catch (error) {
    return () => {
      throw error
    }
  }
}
