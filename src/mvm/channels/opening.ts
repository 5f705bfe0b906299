/**
 * @module mvm/channels/opening
 *
 * The opening of a channel as one straight line, step by step as in the method: policy, a waiting answerer, a
 * region and its pseudo-address, the asker's signature and measurement, the answerer's measurement, the signed
 * decision, the sealed grant, the answerer's acceptance. Whatever fails ends the line, and the caller undoes
 * what was made.
 *
 * Waiting comes before measuring: nothing here waits for a person once the asker has been told to quote.
 */

import { random, sha256, p256Verify } from "../../lib/crypto.ts"
import { equalBytes, toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { regionBytes, regionLayout } from "../../ring/layout.ts"
import { encodeDecision, type DecisionEnd } from "../../channel/decision.ts"
import { acceptMessage, requestMessage, transcriptHash } from "../../channel/transcript.ts"
import { answerBinding, requestBinding } from "../../tcb/binding.ts"
import { sealGrant } from "../../tcb/grant.ts"
import type { Fields, NamedMessage } from "../../wire/link.ts"
import type { Program } from "../../wire/messages.ts"
import { authorise, checkChannelLimit, checkShare, demandKind } from "./admission.ts"
import { answerOf } from "./answer-of.ts"
import type { Channel, ChannelState } from "./channel.ts"
import type { Member } from "../member.ts"
import { uuidBytes, type Session } from "../session.ts"
import type { MvmContext } from "../context.ts"
import type { Match } from "./offers.ts"
import type { Constraints, Rule } from "../policy/decide.ts"
import type { AppraisedEvidence } from "../verifier.ts"

/** No ring is made smaller than this for want of room. */
const LEAST_RING_BYTES = 64 * 1024

/** A new region leaves room for so many of its size. */
const SPARE_REGIONS = 16

/** The longest a `send --wait` is held. */
const MAX_WAIT_MS = 24 * 3600 * 1000

export interface OpeningRequest {
  readonly asker: Member
  readonly alloc: Fields<"ALLOC">
  readonly cancelled: AbortSignal
  /** Answers ALLOC, and resolves with what `take` makes of the REQUEST that follows it, as it arrives. */
  allocated<T>(
    fields: Fields<"ALLOCATED">,
    channel: Channel,
    take: (message: NamedMessage<"REQUEST">) => T,
  ): Promise<T>
  /** Called as soon as there is something to undo. */
  onChannel(channel: Channel): void
}

export interface Opened {
  readonly channel: Channel
  readonly fields: Fields<"OPENED">
}

/** @throws MvmError with the reason as the operator should read it; the caller reduces it for guests. */
export async function openChannel(context: MvmContext, request: OpeningRequest): Promise<Opened> {
  const { asker, alloc } = request
  const askerSession = sessionOf(asker)
  const { target } = authorise(context, asker, alloc)
  asker.verifier.refuseDistrusted()
  const match = await context.offers.take(
    { asker, target, service: alloc.service, role: alloc.role },
    Math.min(alloc.waitMs, MAX_WAIT_MS),
    (name) => context.hub.byName(name),
    request.cancelled,
  )
  try {
    return await openWith(context, request, { askerSession, target, match })
  } finally {
    // Who waits there has heard nothing yet, unless it was challenged: another may come.
    context.offers.giveBack(match)
  }
}

interface Meeting {
  readonly askerSession: Session
  readonly target: string
  readonly match: Match
}

async function openWith(context: MvmContext, request: OpeningRequest, meeting: Meeting): Promise<Opened> {
  const { asker, alloc } = request
  const { askerSession, target, match } = meeting
  stillThere(asker, askerSession)
  const answererSession = sessionOf(match.member)
  // The policy may have changed while the asker waited.
  const { rule, constraints, target: targetNow } = authorise(context, asker, alloc)
  if (targetNow !== target) throw new MvmError("denied", "the policy changed while the request waited")
  demandKind(constraints, asker, askerSession)
  demandKind(constraints, match.member, answererSession)
  if (!askerSession.canMap || !answererSession.canMap) {
    const who = askerSession.canMap ? match.member.record.name : asker.record.name
    throw new MvmError("unreachable", `${who} cannot map the shared memory`, {
      hint: `mvm guest status on ${who} shows its mapping`,
    })
  }
  checkChannelLimit(context, rule, constraints)
  checkShare(context, { asker, answerer: match.member })
  const channel = allocate(context, { asker, match, alloc, rule, constraints })
  request.onChannel(channel)

  const nonce = random(32)
  const targetUuid = uuidBytes(match.member.record.uuid)
  const sealed = await sealGrant({
    channelId: channel.id,
    recipientUuid: uuidBytes(asker.record.uuid),
    recipientKey: asker.record.keys.sealing,
    context: sha256(nonce),
    grant: { laddress: channel.laddress, ...channel.region, ringBytes: channel.ringBytes },
  })
  const { share, facts: askerFacts } = await request.allocated(
    {
      channelId: channel.id,
      nonce,
      targetUuid,
      targetName: match.member.record.name,
      sealed,
      logOffset: asker.verifier.nextOffset,
    },
    channel,
    ({ fields }) => {
      const asked = requestMessage({
        laddress: channel.laddress,
        targetUuid,
        service: alloc.service,
        share: fields.share,
        nonce,
        epoch: askerSession.epoch,
        program: alloc.program,
      })
      // Step 5 of the method: the source's signature over the pseudo-address.
      if (!p256Verify(asker.record.keys.identity, asked, fields.signature)) {
        throw new MvmError(
          "signature",
          `the request of ${asker.record.name} is not signed with its identity key`,
        )
      }
      // Step 6: its measurement.
      const facts = asker.verifier.appraise(askerSession, {
        purpose: "request",
        nonce,
        binding: requestBinding(asked),
        quote: fields.quote,
      })
      return { share: fields.share, facts }
    },
  )
  channel.asker.measuredMs = performance.now()
  stillThere(match.member, answererSession)
  advance(channel, "challenged")
  context.offers.used(match)
  const challengeNonce = random(32)
  const { share: answererShare, facts: answererFacts } = await answerOf(
    match.member,
    "CHALLENGE",
    {
      channelId: channel.id,
      offerId: match.offer.offerId,
      nonce: challengeNonce,
      sourceUuid: uuidBytes(asker.record.uuid),
      sourceName: asker.record.name,
      service: alloc.service,
      share,
      logOffset: match.member.verifier.nextOffset,
    },
    "EVIDENCE",
    ({ fields }) => {
      if (!equalBytes(fields.channelId, channel.id)) {
        throw new MvmError("protocol", `EVIDENCE.channelId of ${match.member.record.name}: another channel`)
      }
      const facts = match.member.verifier.appraise(answererSession, {
        purpose: "answer",
        nonce: challengeNonce,
        binding: answerBinding({
          channelId: channel.id,
          askerShare: share,
          answererShare: fields.share,
          program: match.offer.program,
        }),
        quote: fields.quote,
      })
      return { share: fields.share, facts }
    },
  )
  channel.answerer.measuredMs = performance.now()

  const decision = encodeDecision({
    channelId: channel.id,
    timeMs: Date.now(),
    asker: decisionEnd(asker, askerSession, alloc.program, askerFacts),
    answerer: decisionEnd(match.member, answererSession, match.offer.program, answererFacts),
    role: alloc.role,
    service: alloc.service,
    rule: rule.label,
    transport: "memory",
    isolation: "arena",
    ringBytes: channel.ringBytes,
    digestMode: channel.digestMode,
    maxBytes: channel.maxBytes,
    mvmMeasurement: context.measurement,
  })
  const decisionSignature = context.identity.sign(decision)
  channel.transcript = transcriptHash({
    decision,
    laddress: channel.laddress,
    service: alloc.service,
    askerShare: share,
    answererShare,
  })
  advance(channel, "granted")
  channel.granted = true
  context.evidence.record({
    channel: channel.key,
    timeMs: Date.now(),
    decision: toHex(decision),
    decisionSignature: toHex(decisionSignature),
    refused: null,
    ends: [askerFacts.record, answererFacts.record],
  })
  const logged = context.audit.commit("grant", {
    channel: channel.key,
    asker: asker.record.name,
    answerer: match.member.record.name,
    service: alloc.service,
    rule: rule.label,
    decision: toHex(sha256(decision)),
    transcript: toHex(channel.transcript),
  })
  let acceptSignature: Uint8Array
  const ended = Promise.withResolvers<void>()
  try {
    // Step 7: the pseudo-address, encrypted for the target.
    acceptSignature = await answerOf(
      match.member,
      "GRANT",
      {
        channelId: channel.id,
        decision,
        decisionSignature,
        sealed: await sealGrant({
          channelId: channel.id,
          recipientUuid: targetUuid,
          recipientKey: match.member.record.keys.sealing,
          context: sha256(decision),
          grant: { laddress: channel.laddress, ...channel.region, ringBytes: channel.ringBytes },
        }),
        leaseMs: context.leaseMs,
      },
      "ACCEPT",
      ({ fields }) => {
        // From here on the answerer may send, and come to its end, before the asker hears of it all.
        channel.accepted = ended.promise
        return fields.signature
      },
    )
    if (!p256Verify(match.member.record.keys.identity, acceptMessage(channel.transcript), acceptSignature)) {
      throw new MvmError(
        "signature",
        `the acceptance of ${match.member.record.name} is not signed with its key`,
      )
    }
    // Said to nobody but the answerer before it is on disk; the asker hears of it only now.
    await logged
    stillThere(asker, askerSession)
    stillThere(match.member, answererSession)
    // What was found holds now, or the decision is void: steps above took up to 20 seconds.
    asker.verifier.refuseDistrusted()
    match.member.verifier.refuseDistrusted()
    if (authorise(context, asker, alloc).target !== target) {
      throw new MvmError("denied", "the policy changed while the channel was opened")
    }
    advance(channel, "open")
    context.channels.persist(channel)
  } finally {
    ended.resolve()
  }
  return {
    channel,
    fields: {
      channelId: channel.id,
      decision,
      decisionSignature,
      share: answererShare,
      acceptSignature,
      leaseMs: context.leaseMs,
    },
  }
}

/** @throws MvmError `aborted` when somebody ended the channel meanwhile: it stays ended. */
function advance(channel: Channel, to: ChannelState): void {
  if (channel.state === "closed") {
    throw new MvmError("aborted", channel.endReason ?? "the channel was ended while it was opened")
  }
  channel.state = to
}

function sessionOf(member: Member): Session {
  if (!member.session) throw new MvmError("no_agent", `${member.record.name} has no agent connected`)
  return member.session
}

function stillThere(member: Member, session: Session): void {
  if (member.session !== session) {
    throw new MvmError("aborted", `the link of ${member.record.name} changed while the channel was opened`)
  }
}

/** Rings shrink as the arena fills, so that the first channels are fast and the last ones still find room. */
function ringFor(context: MvmContext): number {
  const { freeBytes } = context.arena
  let { ringBytes } = context
  while (ringBytes > LEAST_RING_BYTES && regionBytes(ringBytes) * SPARE_REGIONS > freeBytes) ringBytes /= 2
  return ringBytes
}

interface Allocation {
  readonly asker: Member
  readonly match: Match
  readonly alloc: Fields<"ALLOC">
  readonly rule: Rule
  readonly constraints: Constraints
}

function allocate(context: MvmContext, allocation: Allocation): Channel {
  const { asker, match, alloc, rule, constraints } = allocation
  const ringBytes = ringFor(context)
  const { lengthBytes, header } = regionLayout(ringBytes)
  const region = context.arena.allocate(lengthBytes)
  const id = random(16)
  const channel: Channel = {
    id,
    key: toHex(id),
    service: alloc.service,
    asker: end(asker, alloc.program),
    answerer: end(match.member, match.offer.program),
    askedFor: alloc.target,
    region,
    ringBytes,
    laddress: random(16),
    rule: rule.label,
    maxSeconds: constraints.maxSeconds,
    maxBytes: constraints.maxBytes,
    digestMode: constraints.digest === "sha256" ? "sha256" : alloc.digest,
    askerProgram: { path: alloc.program.path, digest: toHex(alloc.program.digest) },
    state: "allocated",
    granted: false,
    accepted: undefined,
    transcript: new Uint8Array(0),
    openedMs: Date.now(),
    directions: [
      { fin: undefined, receipt: undefined },
      { fin: undefined, receipt: undefined },
    ],
    endCode: undefined,
    endReason: undefined,
    duplex: alloc.role === "duplex",
  }
  context.channels.add(channel)
  context.arena.write(region, 0, header)
  return channel
}

function end(member: Member, program: Program): Channel["asker"] {
  return {
    uuid: member.record.uuid,
    name: member.record.name,
    program: program.path,
    released: false,
    measuredMs: -Infinity,
  }
}

function decisionEnd(
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
