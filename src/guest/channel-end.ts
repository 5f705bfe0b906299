/**
 * @module guest/channel-end
 *
 * One end of an open channel inside the process that uses it: keys, records, and the waiting between them. The
 * keys live here alone and are never written anywhere; when the process ends, so does the channel.
 */

import { equalBytes } from "../lib/bytes.ts"
import { p256Verify, x25519Generate, type KeyPair } from "../lib/crypto.ts"
import { MvmError, STATUS, asMvmError } from "../lib/errors.ts"
import { formatSize } from "../lib/units.ts"
import { parseDecision, type Decision } from "../channel/decision.ts"
import { channelKeys } from "../channel/keys.ts"
import { Opener } from "../channel/opener.ts"
import { Sealer } from "../channel/sealer.ts"
import { openMessage, acceptMessage, transcriptHash } from "../channel/transcript.ts"
import { nap, yieldProcessor } from "../platform/posix.ts"
import type { LocalFields } from "../wire/local-link.ts"
import type { AgentClient } from "./agent-client.ts"
import { pathOf, type RecordPath } from "./record-path.ts"

/** How long an end that saw traffic looks again and again before it asks to be woken. */
const SPIN_MS = 0.1

/**
 * Then it naps for this long before it asks to be woken: in bulk the other end is never away for longer, and leaving
 * it the processor costs less than looking on, and much less than a KICK.
 */
const NAPS_MS = 2
const NAP_US = 50

/** Who just woke the other end looks on for this long: the answer then needs no second kick. */
const SPIN_AFTER_KICK_MS = 1

/** A sleeper looks again after this time even if no KICK came: a lost one costs this much and no more. */
const SLOW_POLL_MS = 500

/** How long the reason for a region that is gone may be on its way. */
const REASON_MS = 1000

/** The MVM tells an end that its channel is over before it takes its memory; of memory that a guest threw out by itself
 * it hears from QEMU, which on a busy host may take seconds. */
const MVM_WORD_MS = 5000

export type OpenRequest = Omit<LocalFields<"OPEN">, "share">
export type OfferRequest = Omit<LocalFields<"OFFER">, "share">

export class ChannelEnd {
  readonly decision: Decision
  readonly sealer: Sealer
  readonly opener: Opener
  /** The direction this end sends in: 0 for the asker. */
  readonly sendDirection: 0 | 1
  readonly agent: AgentClient
  readonly #path: RecordPath
  #spinUntilMs = 0
  #isResting = false
  /** This end's identity signature over the transcript: the first record it sends. */
  readonly handshake: Uint8Array

  private constructor(agent: AgentClient, pair: KeyPair, fields: LocalFields<"CHANNEL">) {
    this.agent = agent
    this.decision = parseDecision(fields.decision)
    const { asker, peerShare, acceptSignature } = fields
    const transcript = transcriptHash({
      decision: fields.decision,
      laddress: fields.laddress,
      service: this.decision.service,
      askerShare: asker ? pair.publicKey : peerShare,
      answererShare: asker ? peerShare : pair.publicKey,
    })
    const keys = channelKeys(pair.privateKey, peerShare, transcript)
    pair.privateKey.fill(0)
    this.sendDirection = asker ? 0 : 1
    this.#path = pathOf(agent, this.decision, fields)
    this.handshake = asker ? (fields.openSignature ?? new Uint8Array(0)) : acceptSignature
    this.sealer = new Sealer(asker ? keys.askerToAnswerer : keys.answererToAsker, this.#path.sink)
    this.opener = new Opener({
      key: asker ? keys.answererToAsker : keys.askerToAnswerer,
      source: this.#path.source,
      hasStreams: this.decision.role === "duplex",
      verifyHandshake: (signature) =>
        asker
          ? equalBytes(signature, acceptSignature) &&
            p256Verify(this.decision.answerer.identityKey, acceptMessage(transcript), signature)
          : p256Verify(this.decision.asker.identityKey, openMessage(transcript, acceptSignature), signature),
    })
    for (const key of Object.values(keys)) key.fill(0)
  }

  /** Ask for a channel. @throws MvmError as the agent or the MVM said. */
  static async open(agent: AgentClient, request: OpenRequest): Promise<ChannelEnd> {
    const pair = x25519Generate()
    agent.send("OPEN", { ...request, share: pair.publicKey })
    return ChannelEnd.#enter(agent, pair)
  }

  /** Wait for a channel. `onOffered` is called when the MVM knows that this end waits. */
  static async offer(agent: AgentClient, request: OfferRequest, onOffered?: () => void): Promise<ChannelEnd> {
    const pair = x25519Generate()
    agent.send("OFFER", { ...request, share: pair.publicKey })
    await agent.until(() => agent.offered)
    onOffered?.()
    return ChannelEnd.#enter(agent, pair)
  }

  /**
   * A channel that ended while it was opened has no region any more, or another's. Who ended it says so on the way
   * here, and that is the reason to give.
   */
  static async #enter(agent: AgentClient, pair: KeyPair): Promise<ChannelEnd> {
    const fields = await agent.until(() => agent.channel)
    try {
      return new ChannelEnd(agent, pair, fields)
    } catch (error) {
      await agent.event(REASON_MS, () => false)
      agent.check()
      throw error
    }
  }

  get side(): "asker" | "answerer" {
    return this.sendDirection === 0 ? "asker" : "answerer"
  }

  get peer(): Decision["asker"] {
    return this.sendDirection === 0 ? this.decision.answerer : this.decision.asker
  }

  /** Show what was sealed, and wake the other end if it asked for that. */
  flush(): void {
    this.sealer.flush()
    if (!this.#path.published()) return
    this.#spinUntilMs = performance.now() + SPIN_AFTER_KICK_MS
    // Who rests meanwhile, and sends because of another event, looks on as well.
    if (this.#isResting) this.nudge()
  }

  /** Give read room back, and wake the other end if it asked for that. */
  acknowledge(): void {
    this.#path.acknowledge()
  }

  /** Wait until there is something to open. @throws MvmError when the channel may not go on. */
  async awaitData(): Promise<void> {
    await this.#wait(
      () => this.#path.hasData(),
      () => this.#path.wantData(),
      () => this.#path.unwantData(),
    )
  }

  /** Wait until a record of `payloadBytes` fits. @throws MvmError when the channel may not go on. */
  async awaitRoom(payloadBytes: number): Promise<void> {
    this.flush()
    await this.#wait(
      () => this.#path.hasRoom(payloadBytes),
      () => this.#path.wantRoom(payloadBytes),
      () => this.#path.unwantRoom(),
    )
  }

  /**
   * For an end that both sends and receives and lets others run meanwhile. Resolves when there is something to open,
   * when a record of `roomBytes` fits (if that is wanted), when `interrupted` says so after {@link nudge}, or when it
   * is time to {@link check} again.
   */
  async rest(roomBytes: number | undefined, interrupted: () => boolean): Promise<void> {
    const isDue = (): boolean =>
      interrupted() || this.#path.hasData() || (roomBytes !== undefined && this.#path.hasRoom(roomBytes))
    const spinUntil = this.#path.spins ? Math.max(performance.now() + SPIN_MS, this.#spinUntilMs) : 0
    do {
      if (isDue()) return
      yieldProcessor()
      await turn()
    } while (performance.now() < spinUntil)
    this.acknowledge()
    if (!this.#path.wantData()) return
    if (roomBytes === undefined || this.#path.wantRoom(roomBytes)) {
      this.acknowledge()
      this.agent.kicked = false
      const looksOn = (): boolean => performance.now() < this.#spinUntilMs
      this.#isResting = true
      await this.agent.event(SLOW_POLL_MS, () => this.agent.kicked || interrupted() || looksOn())
      this.#isResting = false
      if (roomBytes !== undefined) this.#path.unwantRoom()
    }
    this.#path.unwantData()
  }

  /** Ends a {@link rest}, if there is reason to. */
  nudge(): void {
    this.agent.nudge()
  }

  /**
   * Looks before `lengthBytes` in all are sent or released in one direction.
   *
   * @throws MvmError `denied` when the decision allows fewer.
   */
  checkLength(lengthBytes: number): void {
    const { maxBytes } = this.decision
    if (maxBytes === undefined || lengthBytes <= maxBytes) return
    throw new MvmError("denied", `the policy of this host allows ${formatSize(maxBytes)} at a time`, {
      hint: "operator: max_bytes of the rule",
    })
  }

  /** @throws MvmError when the channel may not go on. */
  check(): void {
    this.agent.check()
  }

  close(): void {
    this.agent.send("CLOSE", {})
    this.#leave()
  }

  /** No record is sealed or opened any more, and no memory touched. */
  #leave(): void {
    this.sealer.wipe()
    this.opener.wipe()
    this.#path.close()
  }

  /**
   * Gives the channel up and tells the other end why. Memory that was taken away looks like memory that was tampered
   * with, so what the MVM has to say of that comes first.
   *
   * @returns the reason
   */
  async abort(error: unknown): Promise<MvmError> {
    const seen = asMvmError(error)
    const mayBeTaken = seen.status === STATUS.integrity && this.decision.isolation === "dedicated"
    if (mayBeTaken) await this.agent.event(MVM_WORD_MS, () => false)
    const { failure } = this.agent
    if (!failure) this.agent.send("ABORT", { code: seen.code, message: seen.message.slice(0, 300) })
    this.#leave()
    return mayBeTaken ? (failure ?? seen) : seen
  }

  async #wait(ready: () => boolean, request: () => boolean, cancel: () => void): Promise<void> {
    this.agent.check()
    if (ready()) return
    const spinUntil = Math.max(performance.now() + SPIN_MS, this.#spinUntilMs)
    while (this.#path.spins && performance.now() < spinUntil) {
      for (let look = 0; look < 64; look += 1) if (ready()) return
      yieldProcessor()
    }
    this.acknowledge()
    const napUntil = performance.now() + NAPS_MS
    while (this.#path.spins && performance.now() < napUntil) {
      nap(NAP_US)
      if (ready()) return
    }
    while (request()) {
      this.acknowledge()
      this.agent.kicked = false
      await this.agent.event(SLOW_POLL_MS, () => this.agent.kicked)
      this.agent.check()
      if (ready()) {
        cancel()
        return
      }
    }
  }
}

/** One turn of the event loop: sockets are read, timers and signal handlers run. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
