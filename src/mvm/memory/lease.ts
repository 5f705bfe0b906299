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

export interface LeaseOwner {
  attach(holding: Holding): Promise<void>
  /** @param isForGood the pair gets no other channel in it */
  giveBack(holding: Holding, isForGood: boolean): void
}

export class Lease implements ChannelMemory {
  readonly isolation = "dedicated"
  readonly ringBytes: number
  readonly lengthBytes: number
  readonly stored: StoredMemory
  readonly #holding: Holding
  readonly #owner: LeaseOwner
  #revoking: ReturnType<typeof setTimeout> | undefined
  #isOver = false

  constructor(holding: Holding, owner: LeaseOwner) {
    this.#holding = holding
    this.#owner = owner
    this.ringBytes = holding.ringBytes
    this.lengthBytes = holding.lengthBytes
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
    if (this.#isOver || this.#revoking) return
    this.#revoking = setTimeout(() => this.#end(), REVOKE_GRACE_MS)
    this.#revoking.unref()
  }

  free(): void {
    clearTimeout(this.#revoking)
    this.#end()
  }

  #end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#owner.giveBack(this.#holding, this.#revoking !== undefined)
  }
}
