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
import { encodeDecision } from "../../channel/decision.ts"
import { acceptMessage, requestMessage, transcriptHash } from "../../channel/transcript.ts"
import { answerBinding, requestBinding } from "../../tcb/binding.ts"
import type { Place } from "../../tcb/grant.ts"
import type { Fields, NamedMessage } from "../../wire/link.ts"
import { authorise } from "./admission.ts"
import { allocate, arenaInstead } from "./allocation.ts"
import { answerOf } from "./answer-of.ts"
import type { Channel, ChannelState } from "./channel.ts"
import { decisionEnd } from "./decision-end.ts"
import type { Member } from "../member.ts"
import { uuidBytes, type Session } from "../session.ts"
import type { MvmContext } from "../context.ts"
import { admit, sessionOf, stillThere, type Meeting } from "./meeting.ts"
import type { Stages } from "./stages.ts"
import type { AppraisedEvidence } from "../verifier.ts"

/** The longest a `send --wait` is held. */
const MAX_WAIT_MS = 24 * 3600 * 1000

/** What the ends proved is so old at most when they may use the channel: plugging in memory takes its time. */
const MAX_PROOF_AGE_MS = 30_000

/** What a grant says of memory where there is none: the pseudo-address alone is granted. */
const NO_PLACE: Place = { tag: new Uint8Array(0), path: "", offset: 0 }

export interface OpeningRequest {
  readonly asker: Member
  readonly alloc: Fields<"ALLOC">
  readonly cancelled: AbortSignal
  /** Begun when the request came. */
  readonly stages: Stages
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
    await context.dedicated.known(asker.record.uuid, match.member.record.uuid)
    return await new Opening(context, request, admit(context, request, { askerSession, target, match })).run()
  } finally {
    // Who waits there has heard nothing yet, unless it was challenged: another may come.
    context.offers.giveBack(match)
  }
}

/** What an end proved, and its 32-byte X25519 share. */
interface Proven {
  readonly share: Uint8Array
  readonly facts: AppraisedEvidence
}

interface SignedDecision {
  readonly decision: Uint8Array
  readonly signature: Uint8Array
  /** Resolves when its audit row is on disk. */
  readonly logged: Promise<void>
}

/** The steps from a region to an open channel, in the order in which {@link Opening.run} takes them. */
class Opening {
  readonly #context: MvmContext
  readonly #request: OpeningRequest
  readonly #meeting: Meeting
  readonly #channel: Channel

  constructor(context: MvmContext, request: OpeningRequest, meeting: Meeting) {
    this.#context = context
    this.#request = request
    this.#meeting = meeting
    this.#channel = allocate(context, { ...meeting, alloc: request.alloc })
    request.onChannel(this.#channel)
  }

  async run(): Promise<Opened> {
    const { asker, askerSession } = this.#meeting
    const [asked, answered] = await this.#bothProve()
    // Nobody gets memory that it shares with another before both have proven what they run, nor after it was ended.
    this.#request.stages.deciding()
    requireLive(this.#channel)
    const isMoved = await this.#attach()
    const decided = this.#decide(asked, answered)
    const acceptSignature = await this.#grant(decided)
    return {
      channel: this.#channel,
      fields: {
        channelId: this.#channel.id,
        decision: decided.decision,
        decisionSignature: decided.signature,
        share: answered.share,
        acceptSignature,
        leaseMs: this.#leaseMs(),
        sealed: isMoved ? this.#seal(asker, askerSession, sha256(decided.decision)) : undefined,
      },
    }
  }

  /**
   * Gives both ends the memory, or a region of the arena where that fails and the rule does not mind: the decision, which
   * names it, is not made yet. @returns whether it is another than ALLOCATED said
   */
  async #attach(): Promise<boolean> {
    const channel = this.#channel
    const { memory } = channel
    try {
      await memory?.attach()
      return false
    } catch (error) {
      if (channel.state === "closed" || memory?.isolation !== "dedicated") throw error
      channel.memory = arenaInstead(this.#context, this.#meeting, error)
      memory.free()
      return true
    }
  }

  /**
   * Both ends at once where the asker was found trusted before, in this boot of it. Who waits is not bothered for one
   * that never was.
   */
  async #bothProve(): Promise<[asker: Proven, answerer: Proven]> {
    if (this.#meeting.asker.verifier.opinion.verdict !== "trusted") {
      return [await this.#askerProves(), await this.#answererProves()]
    }
    // Both are heard before one of them is refused: the asker's REQUEST is what a refusal answers.
    const [asked, answered] = await Promise.allSettled([this.#askerProves(), this.#answererProves()])
    if (asked.status === "rejected") throw asked.reason
    if (answered.status === "rejected") throw answered.reason
    return [asked.value, answered.value]
  }

  /** ALLOCATED and REQUEST: steps 5 and 6 of the method. */
  async #askerProves(): Promise<Proven> {
    const { asker, askerSession, answerer } = this.#meeting
    const { alloc, stages } = this.#request
    const channel = this.#channel
    const nonce = random(32)
    const targetUuid = uuidBytes(answerer.record.uuid)
    stages.allocated()
    const proven = await this.#request.allocated(
      {
        channelId: channel.id,
        nonce,
        targetUuid,
        targetName: answerer.record.name,
        sealed: this.#seal(asker, askerSession, sha256(nonce)),
        logOffset: asker.verifier.nextOffset,
      },
      channel,
      ({ fields }) => {
        const message = requestMessage({
          laddress: channel.laddress,
          targetUuid,
          service: alloc.service,
          share: alloc.share,
          nonce,
          epoch: askerSession.epoch,
          program: alloc.program,
        })
        if (!p256Verify(asker.record.keys.identity, message, fields.signature)) {
          const who = asker.record.name
          throw new MvmError("signature", `the request of ${who} is not signed with its identity key`)
        }
        const { quote } = fields
        const evidence = { purpose: "request", nonce, binding: requestBinding(message), quote } as const
        const facts = stages.appraise(() => asker.verifier.appraise(askerSession, evidence))
        return { share: alloc.share, facts }
      },
    )
    channel.asker.measuredMs = performance.now()
    return proven
  }

  /** CHALLENGE and EVIDENCE: the answerer's quote covers both shares. */
  async #answererProves(): Promise<Proven> {
    const { asker, answerer, answererSession, match } = this.#meeting
    const { alloc, stages } = this.#request
    const { share: askerShare } = alloc
    const channel = this.#channel
    stillThere(answerer, answererSession)
    advance(channel, "challenged")
    this.#context.offers.used(match)
    const nonce = random(32)
    stages.challenged()
    const proven = await answerOf(
      answerer,
      "CHALLENGE",
      {
        channelId: channel.id,
        offerId: match.offer.offerId,
        nonce,
        sourceUuid: uuidBytes(asker.record.uuid),
        sourceName: asker.record.name,
        service: channel.service,
        share: askerShare,
        logOffset: answerer.verifier.nextOffset,
      },
      "EVIDENCE",
      ({ fields }) => {
        if (!equalBytes(fields.channelId, channel.id)) {
          throw new MvmError("protocol", `EVIDENCE.channelId of ${answerer.record.name}: another channel`)
        }
        stages.answered()
        const { share, quote } = fields
        const { program } = match.offer
        const binding = answerBinding({ channelId: channel.id, askerShare, answererShare: share, program })
        const evidence = { purpose: "answer", nonce, binding, quote } as const
        return { share, facts: stages.appraise(() => answerer.verifier.appraise(answererSession, evidence)) }
      },
    )
    channel.answerer.measuredMs = performance.now()
    return proven
  }

  /** DECISION, signed once, kept with the evidence it rests on, and on its way into the audit log. */
  #decide(asked: Proven, answered: Proven): SignedDecision {
    const { asker, askerSession, answerer, answererSession, match, rule } = this.#meeting
    const { alloc } = this.#request
    const context = this.#context
    const channel = this.#channel
    const decision = encodeDecision({
      channelId: channel.id,
      timeMs: Date.now(),
      asker: decisionEnd(asker, askerSession, alloc.program, asked.facts),
      answerer: decisionEnd(answerer, answererSession, match.offer.program, answered.facts),
      role: alloc.role,
      service: alloc.service,
      rule: rule.label,
      transport: channel.transport,
      isolation: channel.memory?.isolation,
      ringBytes: channel.memory?.ringBytes ?? 0,
      digestMode: channel.digestMode,
      maxBytes: channel.maxBytes,
      mvmMeasurement: context.measurement,
    })
    const signature = context.identity.sign(decision)
    channel.transcript = transcriptHash({
      decision,
      laddress: channel.laddress,
      service: alloc.service,
      askerShare: asked.share,
      answererShare: answered.share,
    })
    advance(channel, "granted")
    channel.granted = true
    context.evidence.record({
      channel: channel.key,
      timeMs: Date.now(),
      decision: toHex(decision),
      decisionSignature: toHex(signature),
      refused: null,
      ends: [asked.facts.record, answered.facts.record],
    })
    const row = {
      channel: channel.key,
      asker: asker.record.name,
      answerer: answerer.record.name,
      service: alloc.service,
      rule: rule.label,
      transport: channel.transport,
      decision: toHex(sha256(decision)),
      transcript: toHex(channel.transcript),
    }
    const logged = context.audit.commit("grant", row, () => context.channels.persist(channel))
    return { decision, signature, logged }
  }

  /** GRANT and ACCEPT: step 7, the pseudo-address encrypted for the target. @returns its 64-byte acceptance */
  async #grant({ decision, signature, logged }: SignedDecision): Promise<Uint8Array> {
    const { answerer, answererSession } = this.#meeting
    const channel = this.#channel
    const ended = Promise.withResolvers<void>()
    try {
      const acceptSignature = await answerOf(
        answerer,
        "GRANT",
        {
          channelId: channel.id,
          decision,
          decisionSignature: signature,
          sealed: this.#seal(answerer, answererSession, sha256(decision)),
          leaseMs: this.#leaseMs(),
        },
        "ACCEPT",
        ({ fields }) => {
          // From here on the answerer may send, and come to its end, before the asker hears of it all.
          channel.accepted = ended.promise
          return fields.signature
        },
      )
      if (!p256Verify(answerer.record.keys.identity, acceptMessage(channel.transcript), acceptSignature)) {
        const who = answerer.record.name
        throw new MvmError("signature", `the acceptance of ${who} is not signed with its key`)
      }
      // Said to nobody but the answerer before it is on disk; the asker hears of it only now.
      await logged
      this.#confirm()
      advance(channel, "open")
      this.#request.stages.granted()
      return acceptSignature
    } finally {
      ended.resolve()
    }
  }

  /** As later ones: it ends that long after the older of both measurements. */
  #leaseMs(): number {
    return Math.max(1, Math.floor(this.#context.leaseMs - this.#proofAgeMs()))
  }

  #proofAgeMs(): number {
    const { asker, answerer } = this.#channel
    return performance.now() - Math.min(asker.measuredMs, answerer.measuredMs)
  }

  /** What was found holds now, or the decision is void. */
  #confirm(): void {
    if (this.#proofAgeMs() > MAX_PROOF_AGE_MS) {
      throw new MvmError("timeout", "what both ends have proven is too old by now", { hint: "try again" })
    }
    const { asker, askerSession, answerer, answererSession, target } = this.#meeting
    stillThere(asker, askerSession)
    stillThere(answerer, answererSession)
    asker.verifier.refuseDistrusted()
    answerer.verifier.refuseDistrusted()
    if (authorise(this.#context, asker, this.#request.alloc).target !== target) {
      throw new MvmError("denied", "the policy changed while the channel was opened")
    }
  }

  /** The grant for one end, sealed to it. @throws MvmError `aborted` when its link began a new epoch */
  #seal(recipient: Member, session: Session, context: Uint8Array): Uint8Array {
    stillThere(recipient, session)
    const { id, laddress, memory } = this.#channel
    const place = memory?.place(recipient.record.uuid) ?? NO_PLACE
    const { lengthBytes = 0, ringBytes = 0 } = memory ?? {}
    return session.grants.seal({ channelId: id, context }, { laddress, ...place, lengthBytes, ringBytes })
  }
}

/** @throws MvmError `aborted` when somebody ended the channel meanwhile: it stays ended. */
function advance(channel: Channel, to: ChannelState): void {
  requireLive(channel)
  channel.state = to
}

/** @throws MvmError `aborted`. */
function requireLive({ state, endReason }: Channel): void {
  if (state !== "closed") return
  throw new MvmError("aborted", endReason ?? "the channel was ended while it was opened")
}
