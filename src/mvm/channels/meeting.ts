/**
 * @module mvm/channels/meeting
 *
 * An asker and the end that waits for it: whether they may have a channel, and over what.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Transport } from "../../channel/decision.ts"
import type { Fields } from "../../wire/link.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import type { Constraints, Rule } from "../policy/decide.ts"
import type { Session } from "../session.ts"
import { authorise, checkChannelLimit, demandKind } from "./admission.ts"
import type { Match } from "./offers.ts"
import { checkRelayShare, chooseTransport } from "./transport.ts"

interface Request {
  readonly asker: Member
  readonly alloc: Fields<"ALLOC">
}

/** An asker and the offer that fits it. */
export interface Found {
  readonly askerSession: Session
  readonly target: string
  readonly match: Match
}

/** Who meets whom, and under which rule. */
export interface Meeting {
  readonly asker: Member
  readonly askerSession: Session
  readonly answerer: Member
  readonly answererSession: Session
  readonly match: Match
  readonly target: string
  readonly rule: Rule
  readonly constraints: Constraints
  readonly transport: Transport
}

/** Both ends are there and may have the channel. @throws MvmError `denied`, `refused`, `no_agent`, `busy`. */
export function admit(context: MvmContext, request: Request, found: Found): Meeting {
  const { asker, alloc } = request
  const { askerSession, target, match } = found
  stillThere(asker, askerSession)
  const answerer = match.member
  const answererSession = sessionOf(answerer)
  // The policy may have changed while the asker waited.
  const { rule, constraints, target: targetNow } = authorise(context, asker, alloc)
  if (targetNow !== target) throw new MvmError("denied", "the policy changed while the request waited")
  demandKind(constraints, asker, askerSession)
  demandKind(constraints, answerer, answererSession)
  const transport = chooseTransport(constraints, [
    { member: asker, session: askerSession },
    { member: answerer, session: answererSession },
  ])
  checkChannelLimit(context, rule, constraints)
  if (transport === "relay") checkRelayShare(context, asker, answerer)
  return { asker, askerSession, answerer, answererSession, match, target, rule, constraints, transport }
}

/** @throws MvmError `no_agent`. */
export function sessionOf(member: Member): Session {
  if (!member.session) throw new MvmError("no_agent", `${member.record.name} has no agent connected`)
  return member.session
}

/** @throws MvmError `aborted` when the link began a new epoch. */
export function stillThere(member: Member, session: Session): void {
  if (member.session !== session) {
    throw new MvmError("aborted", `the link of ${member.record.name} changed while the channel was opened`)
  }
}
