/**
 * @module mvm/channels/decision-end
 *
 * One end as DECISION and the statement of a deposit describe it.
 */

import type { DecisionEnd } from "../../channel/decision.ts"
import type { Program } from "../../wire/messages.ts"
import type { Member } from "../member.ts"
import { uuidBytes, type Session } from "../session.ts"
import type { AppraisedEvidence } from "../verifier.ts"

/** @param facts what its evidence showed: without any there is no such description */
export function decisionEnd(
  member: Member,
  session: Session,
  program: Program,
  facts: AppraisedEvidence,
): DecisionEnd {
  return {
    uuid: uuidBytes(member.record.uuid),
    name: member.record.name,
    identityKey: member.record.keys.identity,
    verdict: facts.verdict,
    bootId: Uint8Array.fromHex(session.bootId),
    kind: session.kind,
    program: { path: program.path, digest: program.digest },
  }
}
