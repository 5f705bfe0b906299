/**
 * @module mvm/channels/openings
 *
 * ALLOC and REQUEST of all members: each opening runs by itself, is given up when its asker goes, and is undone when
 * it fails.
 */

import { toHex } from "../../lib/bytes.ts"
import { MvmError, STATUS, asMvmError } from "../../lib/errors.ts"
import type { Fields, NamedMessage } from "../../wire/link.ts"
import { PING_SERVICE } from "../../wire/reserved.ts"
import { STEP_TIMEOUT_MS } from "./answer-of.ts"
import type { Channel } from "./channel.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import { openChannel } from "./opening.ts"
import { Refusals } from "./refusals.ts"
import { Stages } from "./stages.ts"
import { reduced, refuse, tell } from "./told.ts"

/** ALLOC requests one member may have under way. */
const MAX_OPENING = 256

interface PendingRequest {
  readonly asker: Member
  take(message: NamedMessage<"REQUEST">): void
  reject(error: MvmError): void
}

export class Openings {
  readonly refusals: Refusals
  readonly #context: MvmContext
  readonly #requests = new Map<string, PendingRequest>()
  readonly #cancels = new WeakMap<Member, Map<number, AbortController>>()

  constructor(context: MvmContext) {
    this.#context = context
    this.refusals = new Refusals(context.audit, context.log)
  }

  /** Runs until the channel is open or refused. @throws MvmError `protocol` for an id that is in use. */
  async open(asker: Member, message: NamedMessage<"ALLOC">): Promise<void> {
    const { requestId, fields: alloc } = message
    const mine = this.#cancelsOf(asker)
    if (mine.has(requestId)) throw new MvmError("protocol", "ALLOC: its request id is in use")
    if (mine.size >= MAX_OPENING) {
      const failure = new MvmError("busy", "too many requests under way from this VM")
      return this.#refused(asker, alloc, requestId, undefined, failure)
    }
    let answerTo = requestId
    let made: Channel | undefined
    let madeMs = 0
    const stages = new Stages()
    const controller = new AbortController()
    mine.set(requestId, controller)
    try {
      const opened = await openChannel(this.#context, {
        asker,
        alloc,
        cancelled: controller.signal,
        stages,
        onChannel: (channel) => {
          made = channel
          madeMs = performance.now()
        },
        allocated: (fields, channel, take) => {
          const waiting = this.#awaitRequest(asker, channel, (message) => {
            answerTo = message.requestId
            return take(message)
          })
          asker.link.send("ALLOCATED", fields, requestId)
          return waiting
        },
      })
      const { channelId } = opened.fields
      if (alloc.service === PING_SERVICE) asker.link.send("STAGES", { channelId, ...stages.times })
      asker.link.send("OPENED", opened.fields, answerTo)
      this.#context.meters.opened(performance.now() - madeMs)
    } catch (error) {
      this.#refused(asker, alloc, answerTo, made, asMvmError(error))
    } finally {
      mine.delete(requestId)
      if (made) this.#requests.delete(made.key)
    }
  }

  cancel(asker: Member, requestId: number): void {
    this.#cancels.get(asker)?.get(requestId)?.abort()
  }

  /** @throws MvmError `protocol` for a channel that waits for none from `member`. */
  request(member: Member, message: NamedMessage<"REQUEST">): void {
    const pending = this.#requests.get(toHex(message.fields.channelId))
    if (pending?.asker !== member) throw new MvmError("protocol", "REQUEST.channelId: unknown channel")
    pending.take(message)
  }

  /** What `member` asked for is void. */
  drop(member: Member, error: MvmError): void {
    for (const pending of [...this.#requests.values()]) {
      if (pending.asker === member) pending.reject(error)
    }
    for (const controller of this.#cancels.get(member)?.values() ?? []) controller.abort()
  }

  #refused(
    asker: Member,
    alloc: Fields<"ALLOC">,
    answerTo: number,
    channel: Channel | undefined,
    failure: MvmError,
  ): void {
    const { code, message } = failure
    const { target, service } = alloc
    this.#context.meters.refused(code)
    this.refusals.add(asker.record, { target, service, channel: channel?.key ?? null, code, message })
    if (channel) this.#undo(asker, channel, failure)
    refuse(this.#context, asker, answerTo, failure)
  }

  #undo(asker: Member, channel: Channel, failure: MvmError): void {
    const { answerer, state } = channel
    channel.state = "closed"
    const member = this.#context.hub.byUuid(answerer.uuid)
    if (failure.status === STATUS.attestation) this.#keepEvidence(channel, [asker, member], failure)
    if (member && (state === "challenged" || state === "granted" || state === "open")) {
      const told = reduced(failure, answerer.name)
      tell(this.#context, member, "ABORT", {
        channelId: channel.id,
        code: told.code,
        message: told.message,
      })
    }
    // Its memory may be what failed.
    channel.memory?.revoke()
    // An answerer that was granted the region may map it: its CLOSE frees it, or an epoch without the channel.
    if (channel.granted) this.#context.channels.release(channel, channel.asker)
    else this.#context.channels.discard(channel)
  }

  /** What was known of both ends when one of them was refused for its software. */
  #keepEvidence(channel: Channel, members: readonly (Member | undefined)[], failure: MvmError): void {
    const ends = members.map((member) => member?.verifier.lastRecord).filter((record) => record !== undefined)
    if (ends.length === 0) return
    const refused = `${failure.code}: ${failure.message}`
    const about = { channel: channel.key, timeMs: Date.now(), decision: null, decisionSignature: null }
    this.#context.evidence.record({ ...about, refused, ends })
  }

  /** Resolves with what `take` makes of the REQUEST, which it is given as it arrives. */
  #awaitRequest<T>(
    asker: Member,
    channel: Channel,
    take: (message: NamedMessage<"REQUEST">) => T,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer)
        this.#requests.delete(channel.key)
      }
      const leave = (error: unknown): void => {
        settle()
        reject(error)
      }
      const timer = setTimeout(
        () => leave(new MvmError("timeout", `${asker.record.name} sent no REQUEST in time`)),
        STEP_TIMEOUT_MS,
      )
      this.#requests.set(channel.key, {
        asker,
        take: (message) => {
          settle()
          try {
            resolve(take(message))
          } catch (error) {
            reject(error)
          }
        },
        reject: leave,
      })
    })
  }

  #cancelsOf(member: Member): Map<number, AbortController> {
    let mine = this.#cancels.get(member)
    if (!mine) this.#cancels.set(member, (mine = new Map()))
    return mine
  }
}
