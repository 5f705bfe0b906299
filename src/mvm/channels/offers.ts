/**
 * @module mvm/channels/offers
 *
 * Where those who ask meet those who wait. An offer serves one channel; who asks before anybody waits is put in
 * line until the offer comes or the time is over.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Role } from "../../wire/messages.ts"
import type { Member, Offer } from "../member.ts"
import type { Session } from "../session.ts"
import { RecentlyServed } from "./recently-served.ts"

export interface Wanted {
  readonly asker: Member
  readonly target: string
  readonly service: string
  readonly role: Role
}

export interface Match {
  readonly member: Member
  readonly offer: Offer
}

interface Waiter {
  readonly wanted: Wanted
  resolve(match: Match): void
}

const COMPLEMENT: Record<Role, Role> = { send: "receive", receive: "send", duplex: "duplex" }

/** What nobody does, and what would, by what the asker wants. */
const ABSENT: Record<Role, readonly [verb: string, command: string]> = {
  send: ["waits for", "mvm guest recv"],
  receive: ["offers", "mvm guest send --offer"],
  duplex: ["serves", "mvm guest serve"],
}

/** At most this many offers and this many waiters a member. */
export const MAX_OFFERS = 1024

export class OfferBoard {
  #waiters: Waiter[] = []
  /** Offers in the hands of somebody who may still give them back, by the epoch they belong to. */
  readonly #taken = new Map<Offer, Session | undefined>()
  readonly #served = new RecentlyServed()

  /** A new offer of `member`: given to who waits longest for it, or kept. */
  add(member: Member, offer: Offer): void {
    if (member.offers.size >= MAX_OFFERS) {
      throw new MvmError("busy", `more than ${MAX_OFFERS} offers from one VM`)
    }
    const index = this.#waiters.findIndex((waiter) => fits(waiter.wanted, member, offer))
    const waiter = this.#waiters[index]
    if (!waiter) {
      member.offers.set(offer.offerId, offer)
      return
    }
    this.#waiters.splice(index, 1)
    this.#hand(member, offer)
    waiter.resolve({ member, offer })
  }

  /** The member takes `offerId` back, wherever it is. */
  withdraw(member: Member, offerId: number): void {
    const offer = member.offers.get(offerId)
    if (offer) this.#served.withdrawn(member, offer.service)
    member.offers.delete(offerId)
    for (const [offer, session] of this.#taken) {
      if (session === member.session && offer.offerId === offerId) this.#taken.delete(offer)
    }
  }

  /** The member has been told of the match: the offer is gone for good. */
  used(match: Match): void {
    this.#taken.delete(match.offer)
  }

  /** Nothing came of the match: the offer stands again, unless it was used, withdrawn, or its epoch is over. */
  giveBack({ member, offer }: Match): void {
    if (!this.#taken.has(offer)) return
    const session = this.#taken.get(offer)
    this.#taken.delete(offer)
    if (session && session === member.session && member.offers.size < MAX_OFFERS) this.add(member, offer)
  }

  /**
   * The offer that fits, waited for up to `waitMs`, and a little where a service is about to offer again. It is taken
   * off the board.
   *
   * @param find the member of that name, or undefined while it is not there
   * @throws MvmError `no_receiver` when none came in time, `interrupted` when the asker gave up.
   */
  async take(
    wanted: Wanted,
    waitMs: number,
    find: (name: string) => Member | undefined,
    cancelled: AbortSignal,
  ): Promise<Match> {
    const member = find(wanted.target)
    for (const offer of member?.offers.values() ?? []) {
      if (!member || !fits(wanted, member, offer)) continue
      member.offers.delete(offer.offerId)
      this.#hand(member, offer)
      return { member, offer }
    }
    const betweenMs = member ? this.#served.waitMs(member, wanted.service, performance.now()) : 0
    const longestMs = Math.max(waitMs, betweenMs)
    if (longestMs <= 0) throw absent(wanted, member)
    return new Promise<Match>((resolve, reject) => {
      const waiter: Waiter = {
        wanted,
        resolve: (match) => {
          end()
          resolve(match)
        },
      }
      const leave = (error: MvmError): void => {
        end()
        this.#waiters = this.#waiters.filter((other) => other !== waiter)
        reject(error)
      }
      const timer = setTimeout(() => leave(absent(wanted, find(wanted.target))), longestMs)
      const onAbort = (): void => leave(new MvmError("interrupted", "the asker gave up"))
      const end = (): void => {
        clearTimeout(timer)
        cancelled.removeEventListener("abort", onAbort)
      }
      cancelled.addEventListener("abort", onAbort)
      this.#waiters.push(waiter)
    })
  }

  #hand(member: Member, offer: Offer): void {
    this.#taken.set(offer, member.session)
    // Who transfers once does not offer again; a service does.
    if (offer.role === "duplex") this.#served.taken(member, offer.service, performance.now())
  }
}

function fits(wanted: Wanted, member: Member, offer: Offer): boolean {
  return (
    member.record.name === wanted.target &&
    offer.service === wanted.service &&
    offer.role === COMPLEMENT[wanted.role] &&
    (offer.source === undefined || offer.source === wanted.asker.record.name)
  )
}

function absent(wanted: Wanted, member: Member | undefined): MvmError {
  if (!member?.session) {
    return new MvmError("no_agent", `${wanted.target} has no agent connected`, {
      hint: `start ${wanted.target} and its agent, or wait for it with --wait`,
    })
  }
  const [verb, command] = ABSENT[wanted.role]
  return new MvmError("no_receiver", `nobody on ${wanted.target} ${verb} service ${wanted.service}`, {
    hint: `run ${command} there, or wait for it with --wait`,
  })
}
