/**
 * @module mvm/deposits/deposits
 *
 * Deposits of all members: taking them, keeping them, handing them out. A member may fill only what it began, and
 * collect only what is for it; anything else is answered like a deposit that is not there.
 */

import { toHex } from "../../lib/bytes.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Fields, NamedMessage } from "../../wire/link.ts"
import { authorise, demandKind } from "../channels/admission.ts"
import { sessionOf, stillThere } from "../channels/meeting.ts"
import type { Refusals } from "../channels/refusals.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import { handOut, type Collection } from "./collection.ts"
import type { DepositKeep } from "./deposit-keep.ts"
import { DepositRegion } from "./deposit-region.ts"
import { IncomingDeposit, type Admission } from "./incoming-deposit.ts"
import { OutgoingDeposit } from "./outgoing-deposit.ts"

/** Deposits one member may fill or collect at a time. */
const MAX_UNDER_WAY = 8
/** Nobody holds a region and a file without a word for longer; what is deposited may come slowly, though. */
const SILENCE_MS = 15 * 60_000
const TICK_MS = 5_000
const MAX_LISTED = 64

export type DepositMessage =
  | NamedMessage<"DEPOSIT">
  | NamedMessage<"DEPOSIT_DATA">
  | NamedMessage<"DEPOSIT_FINISH">
  | NamedMessage<"COLLECT">

export class Deposits {
  readonly #context: MvmContext
  readonly #keep: DepositKeep
  readonly #refusals: Refusals
  readonly #incoming = new Map<string, IncomingDeposit>()
  readonly #outgoing = new Map<string, OutgoingDeposit>()
  /** Whose targets are asked to prove themselves. */
  readonly #proving = new Set<Collection>()
  /** Regions that a member may still have mapped, until it says CLOSE of them. */
  #abandoned: { readonly key: string; readonly uuid: string; readonly region: DepositRegion }[] = []
  readonly #timer: ReturnType<typeof setInterval>

  constructor(context: MvmContext, refusals: Refusals) {
    this.#context = context
    this.#keep = context.deposits
    this.#refusals = refusals
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    for (const incoming of [...this.#incoming.values()]) this.#drop(incoming, false)
    for (const outgoing of [...this.#outgoing.values()]) this.#close(outgoing)
    for (const { region } of this.#abandoned) region.free()
  }

  /** Whether `id` is one that `member` fills or collects, or whose region it was given before its link began anew. */
  has(member: Member, id: Uint8Array): boolean {
    const key = toHex(id)
    if (this.#incoming.get(key)?.admission.member === member) return true
    if (this.#outgoing.get(key)?.member === member) return true
    return this.#abandoned.some((left) => left.key === key && left.uuid === member.record.uuid)
  }

  /** Resolves when it was answered. @throws MvmError why it is refused */
  async handle(member: Member, message: DepositMessage): Promise<void> {
    try {
      switch (message.name) {
        case "DEPOSIT":
          return await this.#begin(member, message)
        case "DEPOSIT_DATA":
          return this.#data(member, message)
        case "DEPOSIT_FINISH":
          return await this.#finish(member, message)
        case "COLLECT":
          return await this.#collect(member, message)
      }
    } catch (error) {
      this.#failed(member, message, asMvmError(error))
      throw error
    }
  }

  /** Whether `id` is one that was handed out to `member`, in this life of the link or an earlier one. */
  isTaken(member: Member, id: Uint8Array): boolean {
    const deposit = this.#keep.table.get(toHex(id))
    return deposit?.target === member.record.uuid && deposit.state === "taken"
  }

  /** The collector has it all, and wrote it out. @throws MvmError `signature`, `integrity`, `protocol` */
  async delivered(member: Member, { requestId, fields }: NamedMessage<"RECEIPT">): Promise<void> {
    const deposit = this.#keep.table.get(toHex(fields.channelId))
    if (!deposit || !this.isTaken(member, fields.channelId)) {
      throw new MvmError("protocol", "RECEIPT.channelId: unknown deposit")
    }
    await this.#keep.delivered(member.record, deposit, fields)
    this.letGo(member, fields.channelId)
    if (requestId !== 0) member.link.send("DONE", {}, requestId)
  }

  /** The member lets go of it, finished or not. */
  letGo(member: Member, id: Uint8Array): void {
    const key = toHex(id)
    const incoming = this.#incoming.get(key)
    if (incoming?.admission.member === member) this.#drop(incoming, false)
    const outgoing = this.#outgoing.get(key)
    if (outgoing?.member === member) this.#close(outgoing)
    const { uuid } = member.record
    this.#free((left) => left.key === key && left.uuid === uuid)
  }

  /** Its link is gone, and what it had under way with it. */
  dropAll(member: Member): void {
    for (const incoming of [...this.#incoming.values()]) {
      if (incoming.admission.member === member) this.#drop(incoming, true)
    }
    for (const outgoing of [...this.#outgoing.values()]) {
      if (outgoing.member === member) this.#close(outgoing)
    }
  }

  /** The member can touch nothing any more: its machine ended, or began anew. */
  releaseAll(uuid: string): void {
    this.#free((left) => left.uuid === uuid)
  }

  async #begin(member: Member, { requestId, fields: asked }: NamedMessage<"DEPOSIT">): Promise<void> {
    const admission = this.#admit(member, asked)
    this.#checkUnderWay(member)
    this.#checkQuota(member, 0)
    const withMemory = asked.memory && admission.mayShare
    const region = DepositRegion.allocate(this.#context, member, withMemory)
    let incoming: IncomingDeposit
    try {
      if (admission.demandsMemory && region.lengthBytes === 0) {
        throw new MvmError(
          "refused",
          `${member.record.name} maps no shared memory, and the policy demands it`,
        )
      }
      incoming = new IncomingDeposit(admission, { begin: (key) => this.#keep.files.begin(key), region })
    } catch (error) {
      region.free()
      throw error
    }
    this.#incoming.set(incoming.key, incoming)
    member.link.send("DEPOSITING", incoming.offer(), requestId)
  }

  /** Policy, and whose log counts. @throws MvmError `denied`, `no_target` */
  #admit(
    member: Member,
    asked: Fields<"DEPOSIT">,
  ): Admission & { readonly mayShare: boolean; readonly demandsMemory: boolean } {
    const session = sessionOf(member)
    const { rule, target: name, constraints } = authorise(this.#context, member, asked)
    if (!constraints.deposit) {
      throw new MvmError("denied", `${rule.label} allows no deposit`, {
        hint: "operator: deposit = true in the rule, if that is meant",
      })
    }
    demandKind(constraints, member, session)
    member.verifier.refuseDistrusted()
    const target = this.#context.registry.getVm(name)
    if (!target) throw new MvmError("no_target", `there is no VM ${name}`)
    const { maxLifetimeMs } = this.#keep.limits
    const wantedMs = asked.lifetimeSeconds === 0 ? maxLifetimeMs : asked.lifetimeSeconds * 1000
    return {
      member,
      session,
      target,
      asked,
      rule: rule.label,
      maxBytes: constraints.maxBytes,
      lifetimeMs: Math.min(wantedMs, maxLifetimeMs),
      // A rule that keeps others out of the memory is met by the link, which nobody else sees.
      mayShare: constraints.isolation !== "dedicated",
      demandsMemory: constraints.transport === "memory",
    }
  }

  #data(member: Member, { requestId, fields }: NamedMessage<"DEPOSIT_DATA">): void {
    const key = toHex(fields.depositId)
    const outgoing = this.#outgoing.get(key)
    if (outgoing?.member === member) {
      return member.link.send("DEPOSIT_BYTES", outgoing.read(fields), requestId)
    }
    const incoming = this.#incomingOf(member, fields.depositId)
    const bytes = incoming.take(fields)
    this.#checkQuota(member, bytes.length)
    incoming.append(bytes)
    member.link.send("DONE", {}, requestId)
  }

  async #finish(member: Member, { requestId, fields }: NamedMessage<"DEPOSIT_FINISH">): Promise<void> {
    if (this.#keep.isKept(member.record, fields)) return member.link.send("DONE", {}, requestId)
    const incoming = this.#incomingOf(member, fields.depositId)
    const row = await incoming.finish(this.#context, fields)
    await this.#keep.keep(row, () => {
      // The policy as it is now, not as it was before the first byte.
      const { target } = this.#admit(member, incoming.admission.asked)
      if (target.uuid !== row.target) throw new MvmError("denied", "the policy changed meanwhile")
    })
    this.#drop(incoming, false)
    member.link.send("DONE", {}, requestId)
  }

  async #collect(member: Member, { requestId, fields }: NamedMessage<"COLLECT">): Promise<void> {
    const session = sessionOf(member)
    const { depositId } = fields
    if (depositId === undefined) return member.link.send("DEPOSITS", this.#listFor(member, fields), requestId)
    this.#checkUnderWay(member)
    const deposit = this.#keep.table.get(toHex(depositId))
    if (!deposit || deposit.target !== member.record.uuid || deposit.expiresMs <= Date.now()) {
      throw new MvmError("unreachable", "there is no such deposit for this VM")
    }
    const collection: Collection = { member, session, deposit, fields }
    this.#proving.add(collection)
    await handOut(this.#context, this.#keep, collection).finally(() => this.#proving.delete(collection))
    stillThere(member, session)
    const region = DepositRegion.allocate(this.#context, member, fields.memory)
    const outgoing = new OutgoingDeposit(member, deposit, { files: this.#keep.files, region })
    const before = this.#outgoing.get(outgoing.key)
    if (before) this.#close(before)
    this.#outgoing.set(outgoing.key, outgoing)
    member.link.send("COLLECTED", outgoing.offer(session), requestId)
  }

  #listFor(member: Member, { service, source, memoryId }: Fields<"COLLECT">): Fields<"DEPOSITS"> {
    const from = source === undefined ? undefined : this.#context.registry.getVm(source)?.uuid
    if (source !== undefined && from === undefined) return { waiting: [], more: 0 }
    return this.#keep.listFor(member.record.uuid, {
      ...(service === undefined ? {} : { service }),
      ...(from === undefined ? {} : { source: from }),
      memory: toHex(memoryId),
      limit: MAX_LISTED,
    })
  }

  #incomingOf(member: Member, id: Uint8Array): IncomingDeposit {
    const incoming = this.#incoming.get(toHex(id))
    if (incoming?.admission.member !== member) throw new MvmError("protocol", "depositId: unknown deposit")
    return incoming
  }

  #checkUnderWay(member: Member): void {
    const filling = [...this.#incoming.values()].filter(({ admission }) => admission.member === member)
    const collecting = [...this.#outgoing.values()].filter((outgoing) => outgoing.member === member)
    const proving = [...this.#proving].filter((collection) => collection.member === member)
    if (filling.length + collecting.length + proving.length < MAX_UNDER_WAY) return
    throw new MvmError("busy", `${member.record.name} has ${MAX_UNDER_WAY} deposits under way already`)
  }

  #checkQuota(member: Member, moreBytes: number): void {
    const filling = [...this.#incoming.values()].map(({ admission, bytes }) => ({
      source: admission.member.record.uuid,
      bytes,
    }))
    this.#keep.checkQuota(member.record, filling, moreBytes)
  }

  /** A request that failed ends what it was about, and a refused deposit is written down like any refused request. */
  #failed(member: Member, { name, fields }: DepositMessage, failure: MvmError): void {
    const id = "depositId" in fields ? fields.depositId : undefined
    const incoming = id && this.#incoming.get(toHex(id))
    const isMine = incoming?.admission.member === member
    // The region is its depositor's until it says CLOSE.
    if (isMine) incoming.close()
    const asked = name === "DEPOSIT" ? fields : isMine ? incoming.admission.asked : undefined
    if (!asked) return
    const { target, service } = asked
    const { code, message } = failure
    this.#refusals.add(member.record, {
      target,
      service,
      channel: null,
      code,
      message: `deposit: ${message}`,
    })
  }

  /** @param abandoned its depositor did not say that it lets go of the region */
  #drop({ key, region, admission }: IncomingDeposit, abandoned: boolean): void {
    this.#incoming.get(key)?.close()
    this.#incoming.delete(key)
    if (!abandoned) return region.free()
    region.abandon()
    this.#abandoned.push({ key, uuid: admission.member.record.uuid, region })
  }

  #free(isOver: (left: { readonly key: string; readonly uuid: string }) => boolean): void {
    for (const left of this.#abandoned) if (isOver(left)) left.region.free()
    this.#abandoned = this.#abandoned.filter(({ region }) => region.lengthBytes > 0)
  }

  #close(outgoing: OutgoingDeposit): void {
    this.#outgoing.delete(outgoing.key)
    outgoing.close()
  }

  #tick(): void {
    const since = performance.now() - SILENCE_MS
    for (const incoming of [...this.#incoming.values()]) {
      if (incoming.heardMs < since) this.#drop(incoming, true)
    }
    for (const outgoing of [...this.#outgoing.values()]) {
      if (outgoing.heardMs < since) this.#close(outgoing)
    }
    this.#abandoned = this.#abandoned.filter(({ region }) => region.lengthBytes > 0)
    const isUnderWay = (key: string): boolean => this.#outgoing.has(key)
    this.#keep.expire(isUnderWay)
  }
}
