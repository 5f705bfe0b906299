/**
 * @module mvm/broker
 *
 * From a message of a member to what it means. A member may speak only of channels it is an end of; anything
 * else is answered like an unknown channel and counted.
 */

import { equalBytes, toHex } from "../lib/bytes.ts"
import { MvmError, STATUS, asMvmError } from "../lib/errors.ts"
import { clip, type Fields, type LinkMessage, type NamedMessage } from "../wire/link.ts"
import { directionFrom, endOf, isSettled, otherEnd, type Channel, type ChannelEnd } from "./channel.ts"
import type { MvmContext } from "./context.ts"
import { acceptEnd } from "./end-of-direction.ts"
import type { Member } from "./member.ts"
import { STEP_TIMEOUT_MS, openChannel } from "./opening.ts"
import { ofPeer, reduced } from "./told.ts"

/** ALLOC requests one member may have under way. */
const MAX_OPENING = 256

interface PendingRequest {
  readonly channel: Channel
  readonly asker: Member
  resolve(message: NamedMessage<"REQUEST">): void
  reject(error: MvmError): void
}

export class Broker {
  readonly #context: MvmContext
  readonly #requests = new Map<string, PendingRequest>()
  readonly #cancels = new Map<Member, Map<number, AbortController>>()

  constructor(context: MvmContext) {
    this.#context = context
  }

  /** A message that answers nothing. Trust: its sender is `member`; all else in it is hostile. */
  onMessage(member: Member, message: LinkMessage): void {
    try {
      this.#handle(member, message)
    } catch (error) {
      const failure = asMvmError(error)
      if (failure.code === "internal") {
        this.#context.log.error("broker", { vm: member.record.name, message: failure.message })
      }
      member.link.counters.refused += 1
      if (message.requestId !== 0) this.#fail(member, message.requestId, failure)
    }
  }

  /** The member's link began a new life: waiting requests of the old one are void. */
  onEpoch(member: Member): void {
    this.#dropPending(member, new MvmError("aborted", `the link of ${member.record.name} began a new epoch`))
  }

  onDisconnect(member: Member): void {
    this.#dropPending(member, new MvmError("no_agent", `the link to ${member.record.name} was lost`))
  }

  /** The member can touch none of its channels any more (its VM ended): tell the other ends. */
  releaseAll(member: { uuid: string; name: string }, reason: string): void {
    for (const channel of this.#context.channels.of(member.uuid)) {
      this.end(channel, "aborted", reason)
      const end = endOf(channel, member.uuid)
      if (end) this.#context.channels.release(channel, end)
    }
  }

  /** Tell both ends that the channel is over. The region stays until both said CLOSE. */
  end(channel: Channel, code: "aborted" | "revoked", reason: string): void {
    if (channel.state === "closed") return
    // An answerer that was not challenged yet knows of no channel.
    const ends = channel.state === "allocated" ? [channel.asker] : [channel.asker, channel.answerer]
    channel.state = "closed"
    channel.endReason = reason
    for (const end of ends) {
      const member = this.#context.hub.byUuid(end.uuid)
      if (!member?.session || end.released) continue
      const message = clip(reason, 1000)
      if (code === "revoked") this.#send(member, "REVOKE", { channelId: channel.id, message })
      else this.#send(member, "ABORT", { channelId: channel.id, code, message })
    }
  }

  #handle(member: Member, message: LinkMessage): void {
    switch (message.name) {
      case "READY":
        return this.#ready(member, message)
      case "PING":
        return member.link.send("DONE", {}, message.requestId)
      case "OFFER":
        this.#context.offers.add(member, { ...message.fields, source: message.fields.source })
        return member.link.send("DONE", {}, message.requestId)
      case "WITHDRAW":
        this.#context.offers.withdraw(member, message.fields.offerId)
        return
      case "ALLOC":
        void this.#alloc(member, message)
        return
      case "CANCEL":
        this.#cancels.get(member)?.get(message.fields.cancels)?.abort()
        return
      case "LOG":
        return member.verifier.addLog(message.fields.offset, message.fields.entries)
      case "REQUEST":
        return this.#request(member, message)
      case "KICK": {
        const { channel, end } = this.#channelOf(member, message.fields.channelId)
        const other = this.#context.hub.byUuid(otherEnd(channel, end).uuid)
        if (other?.session) this.#send(other, "KICK", { channelId: channel.id })
        return
      }
      case "FIN":
      case "RECEIPT":
        void this.#endOfDirection(member, message)
        return
      case "CLOSE":
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

  /** Channels that an agent still holds go on; those it does not name are over for it. */
  #ready(member: Member, message: NamedMessage<"READY">): void {
    if (!member.session) throw new MvmError("protocol", "READY without a session")
    member.session.canMap = message.fields.canMap
    member.session.mapping = message.fields.mapping
    member.session.isReady = true
    const claimed = new Map(
      message.fields.channels.map((entry) => [toHex(entry.channelId), entry.transcript]),
    )
    const kept: Uint8Array[] = []
    for (const channel of this.#context.channels.of(member.record.uuid)) {
      const transcript = claimed.get(channel.key)
      if (transcript && channel.state === "open" && equalBytes(transcript, channel.transcript)) {
        kept.push(channel.id)
        continue
      }
      const end = endOf(channel, member.record.uuid) as ChannelEnd
      // An end that has its receipt may leave while the other one is still told that it was logged.
      if (!isSettled(channel)) {
        this.end(channel, "aborted", `the agent of ${member.record.name} no longer has the channel`)
      }
      this.#context.channels.release(channel, end)
    }
    // A VM finds the memory on its own PCI bus; only a local endpoint needs the file's name.
    const memory = member.record.kind === "local" ? this.#context.arena.path : ""
    const { leaseMs } = this.#context
    member.link.send("SETTINGS", { leaseMs, memory, channels: kept }, message.requestId)
    this.#context.log.info("link_ready", {
      vm: member.record.name,
      mapping: member.session.mapping,
      channels: kept.length,
    })
    for (const id of kept) this.#repeat(member, id)
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
        () => this.#send(member, name, fields),
        () => {},
      )
    })
  }

  async #alloc(asker: Member, message: NamedMessage<"ALLOC">): Promise<void> {
    const alloc = message.fields
    let answerTo = message.requestId
    let made: Channel | undefined
    const controller = new AbortController()
    const mine = this.#cancelsOf(asker)
    asker.opening += 1
    mine.set(message.requestId, controller)
    try {
      if (asker.opening > MAX_OPENING) throw new MvmError("busy", "too many requests under way from this VM")
      const opened = await openChannel(this.#context, {
        asker,
        alloc,
        cancelled: controller.signal,
        onChannel: (channel) => {
          made = channel
        },
        allocated: async (fields, channel) => {
          const waiting = this.#awaitRequest(asker, channel)
          asker.link.send("ALLOCATED", fields, message.requestId)
          const request = await waiting
          answerTo = request.requestId
          return request
        },
      })
      asker.link.send("OPENED", opened.fields, answerTo)
    } catch (error) {
      this.#refuse(asker, alloc, answerTo, made, asMvmError(error))
    } finally {
      asker.opening -= 1
      mine.delete(message.requestId)
      if (made) this.#requests.delete(made.key)
    }
  }

  #refuse(
    asker: Member,
    alloc: Fields<"ALLOC">,
    answerTo: number,
    channel: Channel | undefined,
    failure: MvmError,
  ): void {
    this.#context.log.warn("open_refused", {
      vm: asker.record.name,
      target: alloc.target,
      service: alloc.service,
      code: failure.code,
      message: failure.message,
    })
    void this.#context.audit.commit("refused", {
      asker: asker.record.name,
      target: alloc.target,
      service: alloc.service,
      channel: channel?.key ?? null,
      code: failure.code,
      message: failure.message,
    })
    if (channel) {
      const { answerer, state } = channel
      channel.state = "closed"
      const member = this.#context.hub.byUuid(answerer.uuid)
      if (failure.status === STATUS.attestation) this.#keepEvidence(channel, [asker, member], failure)
      if (member?.session && (state === "challenged" || state === "granted" || state === "open")) {
        const told = reduced(failure, answerer.name)
        this.#send(member, "ABORT", { channelId: channel.id, code: told.code, message: told.message })
      }
      // An answerer that was granted the region may map it: its CLOSE frees it, or an epoch without the channel.
      if (channel.granted) this.#context.channels.release(channel, channel.asker)
      else this.#context.channels.discard(channel)
    }
    this.#fail(asker, answerTo, failure)
  }

  /** What was known of both ends when one of them was refused for its software. */
  #keepEvidence(channel: Channel, members: readonly (Member | undefined)[], failure: MvmError): void {
    const ends = members.map((member) => member?.verifier.lastRecord).filter((record) => record !== undefined)
    if (ends.length === 0) return
    const refused = `${failure.code}: ${failure.message}`
    const about = { channel: channel.key, timeMs: Date.now(), decision: null, decisionSignature: null }
    this.#context.evidence.record({ ...about, refused, ends })
  }

  #awaitRequest(asker: Member, channel: Channel): Promise<NamedMessage<"REQUEST">> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#requests.delete(channel.key)
        reject(new MvmError("timeout", `${asker.record.name} sent no REQUEST in time`))
      }, STEP_TIMEOUT_MS)
      const settle = (): void => {
        clearTimeout(timer)
        this.#requests.delete(channel.key)
      }
      this.#requests.set(channel.key, {
        channel,
        asker,
        resolve: (message) => {
          settle()
          resolve(message)
        },
        reject: (error) => {
          settle()
          reject(error)
        },
      })
    })
  }

  #request(member: Member, message: NamedMessage<"REQUEST">): void {
    const pending = this.#requests.get(toHex(message.fields.channelId))
    if (!pending || pending.asker !== member)
      throw new MvmError("protocol", "REQUEST.channelId: unknown channel")
    pending.resolve(message)
  }

  async #endOfDirection(
    member: Member,
    message: NamedMessage<"FIN"> | NamedMessage<"RECEIPT">,
  ): Promise<void> {
    try {
      const { channel, end } = this.#channelOf(member, message.fields.channelId)
      await acceptEnd(this.#context, { channel, end, member, message })
      const other = this.#context.hub.byUuid(otherEnd(channel, end).uuid)
      if (other?.session) this.#send(other, message.name, message.fields)
      if (message.requestId !== 0) member.link.send("DONE", {}, message.requestId)
    } catch (error) {
      const failure = asMvmError(error)
      this.#context.log.warn("end_refused", { vm: member.record.name, message: failure.message })
      this.#fail(member, message.requestId, failure)
    }
  }

  #close(member: Member, id: Uint8Array): void {
    const { channel, end } = this.#channelOf(member, id)
    const other = otherEnd(channel, end)
    const direction = channel.directions[directionFrom(channel, end)]
    if (channel.state === "open" && !isSettled(channel) && !other.released) {
      // An end that leaves before what it sent (or was sent) is receipted has broken the channel off.
      const member = this.#context.hub.byUuid(other.uuid)
      const message = direction.fin ? `${end.name} left before the receipt` : `${end.name} left`
      if (member?.session) this.#send(member, "ABORT", { channelId: channel.id, code: "aborted", message })
    }
    this.#context.channels.release(channel, end)
  }

  #abort(channel: Channel, end: ChannelEnd, fields: Fields<"ABORT">): void {
    const other = this.#context.hub.byUuid(otherEnd(channel, end).uuid)
    if (other?.session && channel.state !== "closed") {
      const told = ofPeer(end.name, fields)
      this.#send(other, "ABORT", { channelId: channel.id, code: told.code, message: told.message })
    }
    channel.state = "closed"
    channel.endReason = fields.message
    void this.#context.audit.commit("abort", {
      channel: channel.key,
      by: end.name,
      code: fields.code,
      message: fields.message,
    })
    this.#context.channels.release(channel, end)
  }

  /** @throws MvmError `protocol`, the same for a channel of others as for none. */
  #channelOf(member: Member, id: Uint8Array): { channel: Channel; end: ChannelEnd } {
    const channel = this.#context.channels.get(id)
    const end = channel && endOf(channel, member.record.uuid)
    if (!channel || !end) throw new MvmError("protocol", "channelId: unknown channel")
    return { channel, end }
  }

  #cancelsOf(member: Member): Map<number, AbortController> {
    let mine = this.#cancels.get(member)
    if (!mine) this.#cancels.set(member, (mine = new Map()))
    return mine
  }

  #dropPending(member: Member, error: MvmError): void {
    for (const pending of [...this.#requests.values()]) {
      if (pending.asker === member) pending.reject(error)
    }
    for (const controller of this.#cancels.get(member)?.values() ?? []) controller.abort()
  }

  #fail(member: Member, requestId: number, error: MvmError): void {
    if (member.session) member.link.fail(requestId, reduced(error, member.record.name))
  }

  #send<N extends LinkMessage["name"]>(member: Member, name: N, fields: Fields<N>): void {
    try {
      member.link.send(name, fields)
    } catch (error) {
      this.#context.log.warn("link_send", { vm: member.record.name, message: asMvmError(error).message })
    }
  }
}
