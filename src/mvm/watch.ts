/**
 * @module mvm/watch
 *
 * Every linked member is measured again on its period; leases are renewed only on a good result, and a bad one
 * revokes. A change of the policy is held against every open channel at once.
 */

import { concat } from "../lib/bytes.ts"
import { random } from "../lib/crypto.ts"
import { MvmError, asMvmError } from "../lib/errors.ts"
import { NO_BINDING } from "../tcb/binding.ts"
import type { Broker } from "./broker.ts"
import { endOf, otherEnd, type Channel } from "./channels/channel.ts"
import type { MvmContext } from "./context.ts"
import type { Member } from "./member.ts"
import type { VmRecord } from "./state/registry.ts"
import type { Session } from "./session.ts"
import { decide } from "./policy/decide.ts"
import { tell } from "./channels/told.ts"

const MEASURE_TIMEOUT_MS = 10_000
const MAX_EVENT_LOG_BYTES = 4 * 1024 * 1024
/** A VM that gives it byte by byte would cost a copy of the whole for each. */
const MAX_EVENT_LOG_CHUNKS = 256
const TICK_MS = 250
const FIRST_MEASURE_MS = 1000

/** How often an end of an open channel is measured at least while one lease lasts: a quote may fail once. */
const MEASURED_PER_LEASE = 3

export class Watch {
  readonly #context: MvmContext
  readonly #broker: Broker
  /** When each session is measured next; a new session, so a new boot, has a time of its own. */
  readonly #due = new WeakMap<Session, number>()
  readonly #busy = new Set<string>()
  readonly #said = new Map<string, string>()
  readonly #timer: ReturnType<typeof setInterval>

  constructor(context: MvmContext, broker: Broker) {
    this.#context = context
    this.#broker = broker
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Measure `member` now, whatever its period. @throws MvmError the verdict, if it is not trusted. */
  async measure(member: Member): Promise<void> {
    const { session } = member
    if (!session) throw new MvmError("no_agent", `${member.record.name} has no agent connected`)
    this.#due.set(session, performance.now() + this.#periodMs(member))
    const nonce = random(32)
    try {
      await member.link.request("MEASURE", { nonce, logOffset: member.verifier.nextOffset }, "MEASURED", {
        timeoutMs: MEASURE_TIMEOUT_MS,
        // As it arrives: evidence is appraised in the order it was made in.
        onAnswer: ({ fields }) => {
          const evidence = { purpose: "periodic", nonce, binding: NO_BINDING, quote: fields.quote } as const
          member.verifier.appraise(session, evidence)
        },
      })
      this.#renew(member, session)
    } finally {
      // For a VM that is not trusted too: the events tell what was started in place of what.
      if (member.verifier.wantsEvents) await this.#askEvents(member)
    }
    member.verifier.refuseDistrusted()
  }

  /** The firmware's event log, once a boot. Trust: a VM that gives none has none. */
  async #askEvents(member: Member): Promise<void> {
    let log: Uint8Array = new Uint8Array(0)
    try {
      for (let chunks = 0; ; chunks += 1) {
        if (chunks >= MAX_EVENT_LOG_CHUNKS) throw new MvmError("protocol", "EVENT_LOG: too many pieces")
        const { fields } = await member.link.request("EVENTS", { offset: log.length }, "EVENT_LOG", {
          timeoutMs: MEASURE_TIMEOUT_MS,
        })
        if (fields.offset !== log.length || fields.totalBytes > MAX_EVENT_LOG_BYTES) {
          throw new MvmError("protocol", "EVENT_LOG: not what was asked for")
        }
        log = concat(log, fields.events)
        if (log.length >= fields.totalBytes || fields.events.length === 0) break
      }
    } catch (error) {
      log = new Uint8Array(0)
      this.#context.log.warn("event_log", { vm: member.record.name, message: asMvmError(error).message })
    }
    try {
      member.verifier.addEvents(log)
    } catch (error) {
      this.#context.log.warn("event_log", { vm: member.record.name, message: asMvmError(error).message })
    }
  }

  /** A VM has another period: it counts from now. */
  reschedule(record: VmRecord): void {
    const member = this.#context.hub.byUuid(record.uuid)
    if (member?.session) this.#due.set(member.session, performance.now() + this.#periodMs(member))
  }

  /** The member turned untrusted, at a request or on its period: its channels end. */
  distrusted(member: Member, error: MvmError): void {
    void this.#context.audit.commit("untrusted", {
      vm: member.record.name,
      code: error.code,
      message: error.message,
    })
    this.#context.dedicated.drain(member.record.uuid)
    for (const channel of this.#context.channels.of(member.record.uuid)) {
      if (channel.state !== "open") continue
      this.#revoke(channel, `the software of ${member.record.name} is no longer trusted`, error.message)
    }
  }

  /** The policy changed: a channel that no rule allows any more is over. */
  policyChanged(): void {
    this.#context.dedicated.drain()
    for (const channel of this.#context.channels.all()) {
      if (channel.state !== "open" || this.#stillAllowed(channel)) continue
      this.#revoke(channel, "the policy no longer allows this channel", "policy changed")
    }
  }

  #tick(): void {
    const now = performance.now()
    for (const member of this.#context.hub.members()) {
      const { uuid } = member.record
      const { session } = member
      if (!session || this.#busy.has(uuid)) continue
      if (this.#dueOf(member, session, now) > now) continue
      this.#busy.add(uuid)
      this.measure(member)
        .then(
          () => this.#said.delete(uuid),
          (error: unknown) => this.#say(member, asMvmError(error).message),
        )
        .finally(() => this.#busy.delete(uuid))
    }
    this.#limitTime()
  }

  /** What is wrong with a member is logged when it changes, not on every period. */
  #say(member: Member, message: string): void {
    if (this.#said.get(member.record.uuid) === message) return
    this.#said.set(member.record.uuid, message)
    this.#context.log.warn("measure", { vm: member.record.name, message })
  }

  /** A member is measured soon after it linked, then on its period; a channel that was opened since may shorten it. */
  #dueOf(member: Member, session: Session, now: number): number {
    const period = this.#periodMs(member)
    const due = Math.min(this.#due.get(session) ?? now + FIRST_MEASURE_MS, now + period)
    this.#due.set(session, due)
    return due
  }

  /** As it is set; but a lease ends by itself, and an end that is measured seldom would lose its channels. */
  #periodMs({ record }: Member): number {
    const period = record.config.remeasureSeconds * 1000
    const ofLease = this.#context.leaseMs / MEASURED_PER_LEASE
    if (period <= ofLease) return period
    return this.#context.channels.of(record.uuid).some(({ state }) => state === "open") ? ofLease : period
  }

  /** Both ends get a lease that ends `leaseMs` after the older of their last good measurements. */
  #renew(member: Member, session: Session): void {
    if (member.session !== session) return
    const now = performance.now()
    for (const channel of this.#context.channels.of(member.record.uuid)) {
      if (channel.state !== "open") continue
      const end = endOf(channel, member.record.uuid)
      if (!end) continue
      end.measuredMs = now
      const other = otherEnd(channel, end)
      const leaseMs = Math.floor(this.#context.leaseMs - (now - other.measuredMs))
      if (leaseMs <= 0) continue
      for (const { uuid, released } of [end, other]) {
        const holder = this.#context.hub.byUuid(uuid)
        if (holder && !released) tell(this.#context, holder, "LEASE", { leaseMs, channels: [channel.id] })
      }
    }
  }

  #revoke(channel: Channel, told: string, reason: string): void {
    this.#broker.end(channel, "revoked", told)
    this.#context.log.warn("revoked", { channel: channel.key, reason })
    void this.#context.audit.commit("revoke", {
      channel: channel.key,
      asker: channel.asker.name,
      answerer: channel.answerer.name,
      service: channel.service,
      reason,
    })
  }

  #stillAllowed(channel: Channel): boolean {
    const tagsOf = (vm: string): readonly string[] => this.#context.registry.getVm(vm)?.tags ?? []
    const decision = decide(this.#context.policy.current, {
      service: channel.service,
      from: { name: channel.asker.name, tags: tagsOf(channel.asker.uuid) },
      to: { name: channel.askedFor, tags: tagsOf(channel.askedFor) },
      program: channel.askerProgram,
    })
    const isMemoryDemanded = decision.constraints.transport === "memory"
    if (channel.transport === "relay" && isMemoryDemanded) return false
    return decision.action === "allow" && decision.target === channel.answerer.name
  }

  /** By the clock on the wall, which a restart of the MVM does not set back. */
  #limitTime(): void {
    const now = Date.now()
    for (const channel of this.#context.channels.all()) {
      const limit = channel.maxSeconds
      if (channel.state !== "open" || limit === undefined || now - channel.openedMs < limit * 1000) continue
      this.#revoke(channel, `the rule allows ${limit} seconds`, "max_seconds")
    }
  }
}
