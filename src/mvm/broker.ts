/**
 * @module mvm/broker
 *
 * From a message of a member to what it means. A member may speak only of channels it is an end of; anything
 * else is answered like an unknown channel and counted.
 */

import { equalBytes, toHex } from "../lib/bytes.ts"
import { MvmError, asMvmError } from "../lib/errors.ts"
import { clip, type Fields, type LinkMessage, type NamedMessage } from "../wire/link.ts"
import {
  directionFrom,
  endOf,
  isSettled,
  otherEnd,
  type Channel,
  type ChannelEnd,
} from "./channels/channel.ts"
import type { MvmContext } from "./context.ts"
import { Deposits } from "./deposits/deposits.ts"
import { acceptEnd } from "./channels/end-of-direction.ts"
import type { Member } from "./member.ts"
import { Openings } from "./channels/openings.ts"
import { Reach } from "./channels/reach.ts"
import { TokenBucket } from "./token-bucket.ts"
import { dropRelayed, relay, type RelayedMessage } from "./channels/relay.ts"
import { isGivenArena } from "./channels/transport.ts"
import { ofPeer, refuse, tell } from "./channels/told.ts"

/** A hint is not worth queueing behind more than this for a guest that does not read. */
const HINT_BACKLOG_BYTES = 64 * 1024

/** Lines of the log for what one member does wrong: at once, and a second. */
const COMPLAINTS = 16
const COMPLAINTS_PER_SECOND = 0.1

export class Broker {
  readonly #context: MvmContext
  readonly #openings: Openings
  readonly #deposits: Deposits
  readonly #reach: Reach
  readonly #complaints = new WeakMap<Member, TokenBucket>()

  constructor(context: MvmContext) {
    this.#context = context
    this.#openings = new Openings(context)
    this.#reach = new Reach(context)
    this.#deposits = new Deposits(context, this.#openings.refusals)
  }

  stop(): void {
    this.#deposits.stop()
  }

  /** Writes down what was only counted so far. */
  flush(): void {
    this.#openings.refusals.flush()
  }

  /** A message that answers nothing. Trust: its sender is `member`; all else in it is hostile. */
  onMessage(member: Member, message: LinkMessage): void {
    try {
      this.#handle(member, message)
    } catch (error) {
      this.#failed(member, message.requestId, error)
    }
  }

  /** The member's link began a new life: waiting requests of the old one are void. */
  onEpoch(member: Member): void {
    this.#openings.drop(
      member,
      new MvmError("aborted", `the link of ${member.record.name} began a new epoch`),
    )
    this.#deposits.dropAll(member)
  }

  onDisconnect(member: Member): void {
    this.#openings.drop(member, new MvmError("no_agent", `the link to ${member.record.name} was lost`))
    this.#deposits.dropAll(member)
  }

  /** The member can touch none of its channels any more (its VM ended): tell the other ends. */
  releaseAll(member: { uuid: string; name: string }, reason: string): void {
    this.#deposits.releaseAll(member.uuid)
    for (const channel of this.#context.channels.of(member.uuid)) {
      this.end(channel, "aborted", reason)
      const end = endOf(channel, member.uuid)
      if (end) this.#context.channels.release(channel, end)
    }
  }

  /** After a restart of the MVM: a VM that does not run holds no region. */
  releaseAbsent(isThere: (uuid: string) => boolean): void {
    for (const { asker, answerer } of this.#context.channels.all()) {
      for (const end of [asker, answerer]) {
        if (!isThere(end.uuid)) this.releaseAll(end, `${end.name} ended while no MVM was there`)
      }
    }
  }

  /** Tell both ends that the channel is over. The region stays until both said CLOSE. */
  end(channel: Channel, code: "aborted" | "revoked" | "protocol", reason: string): void {
    if (channel.state === "closed") return
    // An answerer that was not challenged yet knows of no channel.
    const ends = channel.state === "allocated" ? [channel.asker] : [channel.asker, channel.answerer]
    channel.state = "closed"
    channel.endCode = code
    channel.endReason = reason
    dropRelayed(this.#context, channel)
    channel.memory?.expire()
    if (code === "revoked") {
      this.#context.meters.revoked()
      channel.memory?.revoke()
    }
    for (const end of ends) {
      const member = this.#context.hub.byUuid(end.uuid)
      if (member && !end.released) this.#tellEnd(member, channel)
    }
  }

  #handle(member: Member, message: LinkMessage): void {
    switch (message.name) {
      case "READY":
        return this.#ready(member, message)
      case "PING":
        return member.link.send("DONE", {}, message.requestId)
      case "STANDING": {
        const { verdict } = member.verifier.opinion
        return member.link.send("OPINION", { verdict, timeMs: Date.now() }, message.requestId)
      }
      case "PEERS":
        return this.#running(member, message.requestId, this.#peers(member, message))
      case "OFFER":
        this.#context.offers.add(member, { ...message.fields, source: message.fields.source })
        return member.link.send("DONE", {}, message.requestId)
      case "WITHDRAW":
        this.#context.offers.withdraw(member, message.fields.offerId)
        return
      case "ALLOC":
        return this.#running(member, message.requestId, this.#openings.open(member, message))
      case "CANCEL":
        return this.#openings.cancel(member, message.fields.cancels)
      case "LOG":
        return member.verifier.addLog(message.fields.offset, message.fields.entries)
      case "REQUEST":
        return this.#openings.request(member, message)
      case "KICK": {
        const { channel, end } = this.#channelOf(member, message.fields.channelId)
        if (channel.state === "open") this.#hint(otherEnd(channel, end), "KICK", message.fields)
        return
      }
      case "READ":
        return member.bulk.read(message.fields.bytes)
      case "RECORD":
      case "CREDIT":
      case "RESUME":
        return this.#relay(member, message)
      case "DEPOSIT":
      case "DEPOSIT_DATA":
      case "DEPOSIT_FINISH":
      case "COLLECT":
        return this.#running(member, message.requestId, this.#deposits.handle(member, message))
      case "FIN":
      case "RECEIPT":
        if (message.name === "RECEIPT" && this.#deposits.isTaken(member, message.fields.channelId)) {
          return this.#running(member, message.requestId, this.#deposits.delivered(member, message))
        }
        return this.#running(member, message.requestId, this.#endOfDirection(member, message))
      case "CLOSE":
        if (this.#deposits.has(member, message.fields.channelId)) {
          return this.#deposits.letGo(member, message.fields.channelId)
        }
        return this.#close(member, message.fields.channelId)
      case "ABORT": {
        const { channel, end } = this.#channelOf(member, message.fields.channelId)
        this.#abort(channel, end, message.fields)
        return
      }
      default:
        throw new MvmError("protocol", `unexpected ${message.name}`)
    }
  }

  #relay(member: Member, message: RelayedMessage): void {
    const what = relay(this.#context, member, message)
    // An end learns a little later than the MVM that its channel is gone: what it says of it meanwhile is no fault.
    if (what === "unknown") member.link.counters.refused += 1
    if (what !== "flooded") return
    const { channel } = this.#channelOf(member, message.fields.channelId)
    const reason = `${member.record.name} sent more records than the other end takes`
    this.end(channel, "protocol", reason)
    void this.#context.audit.commit("abort", {
      channel: channel.key,
      by: member.record.name,
      code: "protocol",
      message: reason,
    })
  }

  async #peers(member: Member, { requestId, fields }: NamedMessage<"PEERS">): Promise<void> {
    member.link.send("PEER_LIST", await this.#reach.page(member, fields.program, fields.after), requestId)
  }

  /** Channels that an agent still holds go on; those it does not name are over for it. */
  #ready(member: Member, message: NamedMessage<"READY">): void {
    if (!member.session || member.session.isReady) throw new MvmError("protocol", "READY: not now")
    const isGiven = isGivenArena(member)
    member.session.canMap = isGiven && message.fields.canMap
    member.session.mapping = isGiven ? message.fields.mapping : "none: the MVM gives it no memory"
    member.session.isReady = true
    const claimed = new Map(
      message.fields.channels.map((entry) => [toHex(entry.channelId), entry.transcript]),
    )
    const kept: Uint8Array[] = []
    for (const channel of this.#context.channels.of(member.record.uuid)) {
      const end = endOf(channel, member.record.uuid) as ChannelEnd
      if (end.released) continue
      const transcript = claimed.get(channel.key)
      if (transcript && channel.state === "open" && equalBytes(transcript, channel.transcript)) {
        kept.push(channel.id)
        continue
      }
      // It ended while this link was down. An agent that names it still has a command that may map the region.
      if (transcript && channel.state === "closed") this.#tellEnd(member, channel)
      // An end that has its receipt may leave while the other one is still told that it was logged.
      if (!isSettled(channel)) {
        this.end(channel, "aborted", `the agent of ${member.record.name} no longer has the channel`)
      }
      if (!transcript) this.#context.channels.release(channel, end)
    }
    // A VM finds the memory on its own PCI bus; only a local endpoint needs the file's name.
    const memory = isGiven && member.record.kind === "local" ? this.#context.arena.path : ""
    const { leaseMs } = this.#context
    const { enc } = member.session.grants
    member.link.send("SETTINGS", { leaseMs, memory, channels: kept, enc }, message.requestId)
    this.#context.log.info("link_ready", {
      vm: member.record.name,
      mapping: member.session.mapping,
      channels: kept.length,
    })
    for (const id of kept) this.#repeat(member, id)
    this.#context.dedicated.trials.begin(member)
  }

  /** What was logged of the other end while this one had no link. */
  #repeat(member: Member, id: Uint8Array): void {
    const { channel, end } = this.#channelOf(member, id)
    const sends = directionFrom(channel, end)
    channel.directions.forEach((direction, index) => {
      const name = index === sends ? "RECEIPT" : "FIN"
      const said = index === sends ? direction.receipt : direction.fin
      if (!said) return
      const { logged, ...statement } = said
      const fields = { channelId: channel.id, direction: index, ...statement }
      void logged.then(
        () => tell(this.#context, member, name, fields),
        () => {},
      )
    })
  }

  async #endOfDirection(
    member: Member,
    message: NamedMessage<"FIN"> | NamedMessage<"RECEIPT">,
  ): Promise<void> {
    const { channel, end } = this.#channelOf(member, message.fields.channelId)
    const isNew = await acceptEnd(this.#context, { channel, end, member, message })
    const other = otherEnd(channel, end)
    const peer = this.#context.hub.byUuid(other.uuid)
    // Said again: most likely known there.
    if (!isNew) this.#hint(other, message.name, message.fields)
    else if (peer) tell(this.#context, peer, message.name, message.fields)
    if (message.requestId !== 0) member.link.send("DONE", {}, message.requestId)
  }

  #close(member: Member, id: Uint8Array): void {
    const { channel, end } = this.#channelOf(member, id)
    if (channel.state !== "closed" && !isSettled(channel)) {
      // An end that leaves before what it sent (or was sent) is receipted has broken the channel off.
      const said = channel.directions[directionFrom(channel, end)].fin
      end.released = true
      this.end(channel, "aborted", said ? `${end.name} left before the receipt` : `${end.name} left`)
    }
    dropRelayed(this.#context, channel)
    this.#context.channels.release(channel, end)
  }

  #abort(channel: Channel, end: ChannelEnd, fields: Fields<"ABORT">): void {
    const { state } = channel
    if (state !== "closed") {
      const other = this.#context.hub.byUuid(otherEnd(channel, end).uuid)
      const told = ofPeer(end.name, fields)
      channel.state = "closed"
      channel.endCode = told.code
      channel.endReason = told.message
      dropRelayed(this.#context, channel)
      if (other && state !== "allocated") this.#tellEnd(other, channel)
    }
    void this.#context.audit.commit("abort", {
      channel: channel.key,
      by: end.name,
      code: fields.code,
      message: fields.message,
    })
    this.#context.channels.release(channel, end)
  }

  /** That the channel is over, and why. */
  #tellEnd(member: Member, { id: channelId, endCode: code = "aborted", endReason = "" }: Channel): void {
    const message = clip(endReason, 1000)
    if (code === "revoked") tell(this.#context, member, "REVOKE", { channelId, message })
    else tell(this.#context, member, "ABORT", { channelId, code, message })
  }

  /** What the other end can do without, sent only while it reads. */
  #hint<N extends "KICK" | "FIN" | "RECEIPT">(end: ChannelEnd, name: N, fields: Fields<N>): void {
    const member = this.#context.hub.byUuid(end.uuid)
    if (!member?.socket || member.socket.backlogBytes > HINT_BACKLOG_BYTES) return
    tell(this.#context, member, name, fields)
  }

  /** Work that answers later: it ends in an answer or a refusal, never in the daemon's. */
  #running(member: Member, requestId: number, work: Promise<void>): void {
    work.catch((error: unknown) => this.#failed(member, requestId, error))
  }

  #failed(member: Member, requestId: number, error: unknown): void {
    const failure = asMvmError(error)
    member.link.counters.refused += 1
    let bucket = this.#complaints.get(member)
    if (!bucket) this.#complaints.set(member, (bucket = new TokenBucket(COMPLAINTS, COMPLAINTS_PER_SECOND)))
    if (bucket.take()) {
      const { code, message } = failure
      this.#context.log.warn("message_refused", { vm: member.record.name, code, message })
    }
    if (requestId !== 0) refuse(this.#context, member, requestId, failure)
  }

  /** @throws MvmError `protocol`, the same for a channel of others as for none. */
  #channelOf(member: Member, id: Uint8Array): { channel: Channel; end: ChannelEnd } {
    const channel = this.#context.channels.get(id)
    const end = channel && endOf(channel, member.record.uuid)
    if (!channel || !end || end.released) throw new MvmError("protocol", "channelId: unknown channel")
    return { channel, end }
  }
}
