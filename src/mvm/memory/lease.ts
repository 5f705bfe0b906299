/**
 * @module mvm/memory/lease
 *
 * One channel's use of a holding.
 */

import type { Place } from "../../tcb/grant.ts"
import type { ChannelMemory, StoredMemory } from "./channel-memory.ts"
import type { Holding } from "./holding.ts"

/** An end that was told of a revocation has so long to let go by itself. */
const REVOKE_GRACE_MS = 2000
/** Of a channel that ended otherwise, so long: what it holds keeps places of both VMs from others. */
const END_GRACE_MS = 10_000

export interface LeaseOwner {
  attach(holding: Holding): Promise<void>
  /** @param isForGood the pair gets no other channel in it */
  giveBack(holding: Holding, isForGood: boolean): void
}

export class Lease implements ChannelMemory {
  readonly isolation = "dedicated"
  readonly ringBytes: number
  readonly lengthBytes: number
  readonly costBytes: number
  readonly stored: StoredMemory
  readonly #holding: Holding
  readonly #owner: LeaseOwner
  readonly #endGraceMs: number
  #taking: ReturnType<typeof setTimeout> | undefined
  #isRevoked = false
  #isOver = false

  constructor(holding: Holding, owner: LeaseOwner, endGraceMs = END_GRACE_MS) {
    this.#holding = holding
    this.#owner = owner
    this.#endGraceMs = endGraceMs
    this.ringBytes = holding.ringBytes
    this.lengthBytes = holding.lengthBytes
    this.costBytes = holding.sizeBytes
    this.stored = { kind: "holding", id: holding.id }
  }

  place(uuid: string): Place {
    return this.#holding.place(uuid)
  }

  attach(): Promise<void> {
    return this.#owner.attach(this.#holding)
  }

  peek(lengthBytes: number): Uint8Array {
    return this.#holding.peek(lengthBytes)
  }

  revoke(): void {
    if (this.#isRevoked) return
    this.#isRevoked = true
    this.#takeAfter(REVOKE_GRACE_MS)
  }

  expire(): void {
    if (!this.#taking) this.#takeAfter(this.#endGraceMs)
  }

  free(): void {
    this.#end(this.#isRevoked)
  }

  #takeAfter(ms: number): void {
    if (this.#isOver) return
    clearTimeout(this.#taking)
    this.#taking = setTimeout(() => this.#end(true), ms)
    this.#taking.unref()
  }

  #end(isForGood: boolean): void {
    clearTimeout(this.#taking)
    if (this.#isOver) return
    this.#isOver = true
    this.#owner.giveBack(this.#holding, isForGood)
  }
}
