/**
 * @module guest/agent-channels
 *
 * The agent's half of the opening: everything that needs the vTPM or the link. The commands hold the session
 * keys; the agent signs, quotes and opens grants for them, and only over what it worked out itself, so a command
 * cannot use the agent to sign other things.
 */

import { equalBytes, toHex } from "../lib/bytes.ts"
import { p256Verify, sha256 } from "../lib/crypto.ts"
import { MvmError } from "../lib/errors.ts"
import { parseDecision, type Decision } from "../channel/decision.ts"
import {
  acceptMessage,
  finMessage,
  openMessage,
  receiptMessage,
  requestMessage,
  transcriptHash,
} from "../channel/transcript.ts"
import { answerBinding, requestBinding } from "../tcb/binding.ts"
import type { Grant } from "../tcb/grant.ts"
import type { Fields, NamedMessage } from "../wire/link.ts"
import type { LocalFields } from "../wire/local-link.ts"
import type { Region } from "../wire/local-messages.ts"
import type { Program } from "../wire/messages.ts"
import { STEP_MS, type AgentParts } from "./agent-parts.ts"
import type { EvidenceMaker } from "./evidence.ts"
import type { Grants } from "./grants.ts"
import { OpeningSet, type Opening, type PeerEnd } from "./opening-set.ts"
import { noMvm, type LinkClient, type Membership } from "./link-client.ts"
import type { GuestVtpm } from "./vtpm.ts"

/** A channel as its command gets it. */
export interface AgentChannel {
  readonly channelId: Uint8Array
  /** hex of `channelId` */
  readonly key: string
  /** One object, so that it is encoded once */
  readonly kick: Fields<"KICK">
  readonly asker: boolean
  /** the signed bytes, word for word as the other end has them */
  readonly decision: Uint8Array
  readonly parsed: Decision
  readonly grant: Grant
  /** Where it is here; undefined on a relay */
  readonly region: Region | undefined
  readonly peerShare: Uint8Array
  readonly acceptSignature: Uint8Array
  readonly openSignature: Uint8Array | undefined
  readonly transcript: Uint8Array
  readonly leaseMs: number
  /** What the peer said of its end before this channel had its command. */
  readonly early: readonly PeerEnd[]
}

export interface EndFields {
  readonly direction: number
  readonly lengthBytes: number
  readonly records: number
  readonly digest: Uint8Array
  readonly content?: Uint8Array | undefined
}

/** The command behind a request. */
export interface Caller {
  readonly program: Program
  /** Fires when the command has ended. */
  readonly gone: AbortSignal
  /** Told before a ping's channel is open. */
  onStages(stages: LocalFields<"STAGES">): void
}

export class AgentChannels {
  readonly #client: LinkClient
  readonly #vtpm: GuestVtpm
  readonly #evidence: EvidenceMaker
  readonly #grants: Grants
  readonly #locate: (grant: Grant) => Promise<Region>
  readonly openings = new OpeningSet()

  constructor(parts: AgentParts) {
    this.#client = parts.client
    this.#vtpm = parts.vtpm
    this.#evidence = parts.evidence
    this.#grants = parts.grants
    this.#locate = (grant) => parts.regionOf(grant)
  }

  /** @throws MvmError `no_mvm` while the link is down. */
  membership(): Membership {
    const { membership } = this.#client
    if (!this.#client.holds(membership)) throw noMvm()
    return membership
  }

  /**
   * ALLOC to OPENED.
   *
   * @param wanted holds the command's 32-byte X25519 share
   * @throws MvmError as the MVM said, or `signature`/`protocol` when what it said does not verify.
   */
  async open(
    wanted: LocalFields<"OPEN">,
    caller: Caller,
    onRequest: (requestId: number) => void,
  ): Promise<AgentChannel> {
    const { me, allocated } = await this.#allocate(wanted, caller, onRequest)
    const opening = this.openings.begin(allocated.channelId, (stages) => caller.onStages(stages))
    try {
      const channel = await this.#request(me, allocated, { wanted, program: caller.program, opening })
      if (opening.ended) throw opening.ended
      return channel
    } catch (error) {
      if (opening.isOpen) this.disown(allocated.channelId)
      throw error
    } finally {
      this.openings.over(opening)
    }
  }

  /** Nothing here can touch the region of the channel: the MVM may give it to others. */
  disown(channelId: Uint8Array): void {
    try {
      this.#client.link.send("CLOSE", { channelId })
    } catch {
      // The next epoch begins without it.
    }
  }

  async #request(
    me: Membership,
    allocated: Fields<"ALLOCATED">,
    { wanted, program, opening }: { wanted: LocalFields<"OPEN">; program: Program; opening: Opening },
  ): Promise<AgentChannel> {
    const { service, share } = wanted
    const begunMs = performance.now()
    const { channelId } = allocated
    const about = { channelId, context: sha256(allocated.nonce) }
    const grant = await this.#grants.open(me, about, allocated.sealed)
    const message = requestMessage({
      laddress: grant.laddress,
      targetUuid: allocated.targetUuid,
      service,
      share,
      nonce: allocated.nonce,
      epoch: me.epoch,
      program,
    })
    // The vTPM goes on with the quote as soon as it has signed.
    const signing = this.#signMeanwhile(message)
    const { fields: opened } = await this.#evidence.make(
      me,
      {
        purpose: "request",
        nonce: allocated.nonce,
        binding: requestBinding(message),
        logOffset: allocated.logOffset,
      },
      async (quote) => {
        const said = { channelId: allocated.channelId, signature: await signing, quote }
        opening.quoteUs = Math.round((performance.now() - begunMs) * 1000)
        return this.#client.link.request("REQUEST", said, "OPENED", { timeoutMs: STEP_MS })
      },
    )
    opening.isOpen = true
    const { acceptSignature } = opened
    const transcript = transcriptHash({
      decision: opened.decision,
      laddress: grant.laddress,
      service,
      askerShare: share,
      answererShare: opened.share,
    })
    const opensWith = this.#signMeanwhile(openMessage(transcript, acceptSignature))
    const parsed = this.#verifyDecision(opened, allocated.channelId)
    mustBe(equalBytes(parsed.asker.uuid, me.vmUuid), "decision.asker: another VM")
    mustBe(equalBytes(parsed.answerer.uuid, allocated.targetUuid), "decision.answerer: another VM")
    mustBe(parsed.service === service, "decision.service: another service")
    mustBe(parsed.role === wanted.role, "decision.role: another role")
    mustBe(
      wanted.digest === "chain" || parsed.digestMode === wanted.digest,
      "decision.digestMode: less than asked",
    )
    const placed = await this.#grantOf(me, opened, grant)
    checkGrant(parsed, placed)
    if (!p256Verify(parsed.answerer.identityKey, acceptMessage(transcript), acceptSignature)) {
      throw new MvmError("signature", `the acceptance of ${parsed.answerer.name} is not signed with its key`)
    }
    const [openSignature, region] = await Promise.all([
      opensWith,
      parsed.transport === "memory" ? this.#locate(placed) : undefined,
    ])
    return {
      channelId: opened.channelId,
      key: toHex(opened.channelId),
      kick: { channelId: opened.channelId },
      asker: true,
      decision: opened.decision,
      parsed,
      grant: placed,
      region,
      peerShare: opened.share,
      acceptSignature,
      openSignature,
      transcript,
      leaseMs: opened.leaseMs,
      early: opening.early,
    }
  }

  /** CHALLENGE: evidence over both shares. */
  async answer(challenge: NamedMessage<"CHALLENGE">, share: Uint8Array, program: Program): Promise<void> {
    const me = this.membership()
    const { fields } = challenge
    const binding = answerBinding({
      channelId: fields.channelId,
      askerShare: fields.share,
      answererShare: share,
      program,
    })
    await this.#evidence.make(
      me,
      { purpose: "answer", nonce: fields.nonce, binding, logOffset: fields.logOffset },
      (quote) =>
        this.#client.link.send(
          "EVIDENCE",
          { channelId: fields.channelId, share, quote },
          challenge.requestId,
        ),
    )
  }

  /** GRANT: open it, check the decision, and accept. */
  async accept(
    granted: NamedMessage<"GRANT">,
    challenge: Fields<"CHALLENGE">,
    share: Uint8Array,
  ): Promise<AgentChannel> {
    const me = this.membership()
    const { fields } = granted
    const about = { channelId: fields.channelId, context: sha256(fields.decision) }
    const grant = await this.#grants.open(me, about, fields.sealed)
    const transcript = transcriptHash({
      decision: fields.decision,
      laddress: grant.laddress,
      service: challenge.service,
      askerShare: challenge.share,
      answererShare: share,
    })
    const acceptsWith = this.#signMeanwhile(acceptMessage(transcript))
    const parsed = this.#verifyDecision(fields, challenge.channelId)
    mustBe(equalBytes(parsed.answerer.uuid, me.vmUuid), "decision.answerer: another VM")
    mustBe(equalBytes(parsed.asker.uuid, challenge.sourceUuid), "decision.asker: another VM")
    mustBe(parsed.service === challenge.service, "decision.service: another service")
    checkGrant(parsed, grant)
    const [acceptSignature, region] = await Promise.all([
      acceptsWith,
      parsed.transport === "memory" ? this.#locate(grant) : undefined,
    ])
    this.#client.link.send(
      "ACCEPT",
      { channelId: fields.channelId, signature: acceptSignature },
      granted.requestId,
    )
    return {
      channelId: fields.channelId,
      key: toHex(fields.channelId),
      kick: { channelId: fields.channelId },
      asker: false,
      decision: fields.decision,
      parsed,
      grant,
      region,
      peerShare: challenge.share,
      acceptSignature,
      openSignature: undefined,
      transcript,
      leaseMs: fields.leaseMs,
      early: [],
    }
  }

  /**
   * Sign and send FIN or RECEIPT; resolves when the MVM has it in its audit log. A link that is lost meanwhile does
   * not lose the statement: it is made again to the next life of the MVM, which knows it if the last one did.
   */
  async end(
    name: "FIN" | "RECEIPT",
    channel: AgentChannel,
    fields: EndFields,
    gone: AbortSignal,
  ): Promise<void> {
    const said = { channelId: channel.channelId, ...fields, content: fields.content }
    const signature = await this.#vtpm.sign(name === "FIN" ? finMessage(said) : receiptMessage(said))
    for (;;) {
      const { membership } = this.#client
      try {
        await this.#client.link.request(name, { ...said, signature }, "DONE", { timeoutMs: STEP_MS })
        return
      } catch (error) {
        if (this.#client.holds(membership)) throw error
      }
      await this.#client.linked(Infinity, gone)
    }
  }

  /** @throws MvmError `signature` when the peer's FIN or RECEIPT is not its own. */
  verifyPeerEnd(channel: AgentChannel, message: PeerEnd): void {
    const peer = channel.asker ? channel.parsed.answerer : channel.parsed.asker
    const { signature, ...said } = message.fields
    const signed = message.name === "FIN" ? finMessage(said) : receiptMessage(said)
    if (!p256Verify(peer.identityKey, signed, signature)) {
      throw new MvmError("signature", `${message.name} is not signed by ${peer.name}`)
    }
  }

  /** ALLOC; while it waits for the other end it outlives a restart of the MVM. */
  async #allocate(
    wanted: LocalFields<"OPEN">,
    { program, gone }: Caller,
    onRequest: (requestId: number) => void,
  ): Promise<{ me: Membership; allocated: Fields<"ALLOCATED"> }> {
    const { target, service, role, digest, share } = wanted
    const deadline = performance.now() + wanted.waitMs
    for (;;) {
      const waitMs = Math.max(0, Math.round(deadline - performance.now()))
      const { membership: me } = this.#client
      try {
        if (!this.#client.holds(me)) throw noMvm()
        const { fields } = await this.#client.link.request(
          "ALLOC",
          { target, service, role, digest, waitMs, program, share },
          "ALLOCATED",
          { timeoutMs: waitMs + STEP_MS, onId: onRequest },
        )
        return { me, allocated: fields }
      } catch (error) {
        if (this.#client.holds(me) || waitMs === 0) throw error
      }
      await this.#client.linked(waitMs, gone)
    }
  }

  /** The grant that counts: what ALLOCATED said of the memory is not final. */
  async #grantOf(me: Membership, opened: Fields<"OPENED">, allocated: Grant): Promise<Grant> {
    if (!opened.sealed) return allocated
    const about = { channelId: opened.channelId, context: sha256(opened.decision) }
    const grant = await this.#grants.open(me, about, opened.sealed)
    mustBe(equalBytes(grant.laddress, allocated.laddress), "OPENED.sealed: another pseudo-address")
    return grant
  }

  /** The vTPM signs while the message is checked here; the signature goes nowhere when that fails. */
  #signMeanwhile(message: Uint8Array): Promise<Uint8Array> {
    const signing = this.#vtpm.sign(message)
    signing.catch(() => {})
    return signing
  }

  /** Trust: the decision counts only under the signature of the MVM that the vTPM pins. */
  #verifyDecision(
    signed: { channelId: Uint8Array; decision: Uint8Array; decisionSignature: Uint8Array },
    channelId: Uint8Array,
  ): Decision {
    if (!p256Verify(this.#vtpm.mvmPublicKey, signed.decision, signed.decisionSignature)) {
      throw new MvmError("signature", "the decision is not signed by the MVM")
    }
    const parsed = parseDecision(signed.decision)
    mustBe(equalBytes(parsed.channelId, channelId), "decision.channelId: another channel")
    mustBe(equalBytes(signed.channelId, channelId), "channelId: another channel")
    return parsed
  }
}

/** What the region is, decides whether a record may be opened where it lies: both must say the same of it. */
function checkGrant({ ringBytes, isolation }: Decision, grant: Grant): void {
  mustBe(ringBytes === grant.ringBytes, "decision.ringBytes: not the grant's")
  mustBe((isolation === "dedicated") === grant.tag.length > 0, "decision.isolation: not the grant's")
}

function mustBe(condition: boolean, problem: string): void {
  if (!condition) throw new MvmError("protocol", problem)
}
