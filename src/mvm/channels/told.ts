/**
 * @module mvm/channels/told
 *
 * What a guest is told of a failure. The operator finds the rest in audit and log: messages may name paths of the
 * host, rules of the policy or programs of another VM. Only codes listed here pass with their own words.
 */

import { MvmError, STATUS, asMvmError, type ErrorCode } from "../../lib/errors.ts"
import { clip, errorFromPeer, type Fields, type MessageName } from "../../wire/link.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"

/** Their messages name nothing but members, services and fields of messages. */
const OPEN = new Set<ErrorCode>([
  "unreachable",
  "no_agent",
  "no_target",
  "no_receiver",
  "timeout",
  "aborted",
  "peer_failed",
  "busy",
  "too_large",
  "integrity",
  "protocol",
  "frame",
  "signature",
  "digest_mismatch",
  "refused",
  "revoked",
  "interrupted",
])

/** A path or a trace: no name of a member, a service or a field has such characters. */
const OF_HOST = /[/\n\\]/

/** A member's own words, which are its own to say. */
const OF_PEER = /^[\w.-]+ could not answer: /

/** What stands in for the operator's words, and what the operator can do. */
const REPLACED = new Map<ErrorCode, readonly [string, string]>([
  ["no_space", ["the host has no space left", "the log of mvm serve says where"]],
  ["denied", ["the policy of this host denies it", "mvm audit list --kind refused names the rule"]],
  ["policy_broken", ["the policy is broken, so nothing is allowed", "mvm policy check says where"]],
])

/** `failure` as `reader`, a guest, may see it. */
export function reduced(failure: MvmError, reader: string): MvmError {
  const { code, message, hint } = failure
  const replaced = REPLACED.get(code)
  if (replaced) return new MvmError(code, replaced[0], { hint: `operator: ${replaced[1]}` })
  if (OPEN.has(code)) {
    return OF_HOST.test(message) && !OF_PEER.test(message)
      ? new MvmError(code, "the MVM could not do it", { hint: "operator: the log of mvm serve says why" })
      : new MvmError(code, message, { hint: hint !== undefined && OF_HOST.test(hint) ? undefined : hint })
  }
  if (failure.status !== STATUS.attestation) {
    return new MvmError("internal", "the MVM failed", { hint: "operator: the log of mvm serve says why" })
  }
  return message.startsWith(`${reader}: `)
    ? new MvmError(code, message, { hint })
    : new MvmError("peer_untrusted", "the other end's software is not trusted")
}

/**
 * Why `name` gave up, as its peer is told. Trust: code and message are `name`'s own words. Its disk or its disbelief
 * are not the peer's; only that what arrived was not what was sent is a fact about both.
 */
export function ofPeer(name: string, fields: Fields<"ABORT">): MvmError {
  const { code, status } = errorFromPeer(fields.code, fields.message)
  const told = status === STATUS.integrity || code === "aborted" ? code : "peer_failed"
  return new MvmError(told, clip(`${name} gave up: ${fields.message}`, 1000))
}

/** Sends to `member` if it is linked; a link that fails is its own affair. */
export function tell<N extends MessageName>(
  context: MvmContext,
  member: Member,
  name: N,
  fields: Fields<N>,
): void {
  if (!member.session) return
  try {
    member.link.send(name, fields)
  } catch (error) {
    context.log.warn("link_send", { vm: member.record.name, message: asMvmError(error).message })
  }
}

/** Answers request `requestId` of `member` with `failure`, reduced. */
export function refuse(context: MvmContext, member: Member, requestId: number, failure: MvmError): void {
  if (!member.session) return
  try {
    member.link.fail(requestId, reduced(failure, member.record.name))
  } catch (error) {
    context.log.warn("link_send", { vm: member.record.name, message: asMvmError(error).message })
  }
}
