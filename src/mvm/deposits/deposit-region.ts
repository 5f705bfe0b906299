/**
 * @module mvm/deposits/deposit-region
 *
 * The part of the arena through which the records of one deposit pass, where the member maps it. It is a window, not
 * a ring: one end fills it, says so, and waits until the other has emptied it.
 */

import { random, sha256 } from "../../lib/crypto.ts"
import type { ArenaRegion } from "../channels/arena.ts"
import { isGivenArena } from "../channels/transport.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import type { Session } from "../session.ts"

/** Enough that the messages about it cost little. */
const REGION_BYTES = 1 << 20
/** A smaller arena gives less, so that channels still find room. */
const SHARE_OF_ARENA = 1 / 16
const PAGE_BYTES = 4096
/** A member that did not say CLOSE may still write for so long. */
const ABANDONED_MS = 60_000
const LADDRESS_BYTES = 16

export class DepositRegion {
  /** 16 bytes */
  readonly laddress = random(LADDRESS_BYTES)
  readonly #context: MvmContext
  #region: ArenaRegion | undefined
  #timer: ReturnType<typeof setTimeout> | undefined

  private constructor(context: MvmContext, region: ArenaRegion | undefined) {
    this.#context = context
    this.#region = region
  }

  /** @param wanted false: the bytes travel over the link */
  static allocate(context: MvmContext, member: Member, wanted: boolean): DepositRegion {
    const isMapped = wanted && member.session?.canMap === true && isGivenArena(member)
    return new DepositRegion(context, isMapped ? allocate(context) : undefined)
  }

  /** 0: there is none. */
  get lengthBytes(): number {
    return this.#region?.lengthBytes ?? 0
  }

  /** Where it is, encrypted to the member. @param nonce what the grant is bound to @throws MvmError `aborted` */
  seal(session: Session, depositId: Uint8Array, nonce: Uint8Array): Uint8Array {
    const { offset = 0, lengthBytes = 0 } = this.#region ?? {}
    return session.grants.seal(
      { channelId: depositId, context: sha256(nonce) },
      { laddress: this.laddress, tag: new Uint8Array(0), path: "", offset, lengthBytes, ringBytes: 0 },
    )
  }

  /** A private copy of its first bytes. Trust: whoever maps the arena wrote them. */
  read(lengthBytes: number): Uint8Array {
    if (!this.#region) throw new RangeError("no region")
    return this.#context.arena.read(this.#region, 0, lengthBytes)
  }

  write(bytes: Uint8Array): void {
    if (!this.#region) throw new RangeError("no region")
    this.#context.arena.write(this.#region, 0, bytes)
  }

  /** The member lets go of it, or is gone. */
  free(): void {
    clearTimeout(this.#timer)
    if (this.#region) this.#context.arena.free(this.#region)
    this.#region = undefined
  }

  /** The member may still have it mapped: it is free a while later, if not before. */
  abandon(): void {
    this.#timer ??= setTimeout(() => this.free(), ABANDONED_MS)
    this.#timer.unref()
  }
}

/** @returns undefined where the arena has no room: the link serves as well */
function allocate({ arena, log }: MvmContext): ArenaRegion | undefined {
  const share = Math.floor((arena.sizeBytes * SHARE_OF_ARENA) / PAGE_BYTES) * PAGE_BYTES
  try {
    return arena.allocate(Math.min(REGION_BYTES, share))
  } catch (error) {
    log.debug("deposit_region", { message: (error as Error).message })
    return undefined
  }
}
