/**
 * @module mvm/channels/recently-served
 *
 * A service makes a new offer after each that was taken, so who asks right then finds none. Here is kept which
 * services are likely to be back at once: for those, and for no others, an asker who would not wait waits a little.
 */

import type { Member } from "../member.ts"

/** Longer than a busy VM takes to offer again. */
export const BETWEEN_OFFERS_MS = 5_000
/** Services remembered of one member. */
const MAX_REMEMBERED = 1024

export class RecentlyServed {
  readonly #taken = new WeakMap<Member, Map<string, number>>()

  /** An offer of the service was taken. @param nowMs of any clock that only goes forward */
  taken(member: Member, service: string, nowMs: number): void {
    let services = this.#taken.get(member)
    if (!services) this.#taken.set(member, (services = new Map()))
    // The one remembered last stands last.
    services.delete(service)
    services.set(service, nowMs)
    const [oldest] = services.keys()
    if (services.size > MAX_REMEMBERED && oldest !== undefined) services.delete(oldest)
  }

  /** An offer of the service was withdrawn: it is not expected back. */
  withdrawn(member: Member, service: string): void {
    this.#taken.get(member)?.delete(service)
  }

  /** How long an asker of the service should wait at least. */
  waitMs(member: Member, service: string, nowMs: number): number {
    const takenMs = this.#taken.get(member)?.get(service)
    return takenMs === undefined ? 0 : Math.max(0, takenMs + BETWEEN_OFFERS_MS - nowMs)
  }
}
