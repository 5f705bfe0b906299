/**
 * @module guest/agent-offers
 *
 * What commands of this machine wait with, as the MVM knows it: in whose name each service is, and that it is told
 * again to each new life of the MVM.
 */

import { MvmError, asMvmError } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import type { Fields } from "../wire/link.ts"
import { isReserved } from "../wire/reserved.ts"
import type { CommandSession } from "./command-session.ts"
import type { LinkClient } from "./link-client.ts"
import { ServiceNames } from "./service-names.ts"

const ANSWER_MS = 10_000

export interface HeldOffer {
  readonly session: CommandSession
  readonly fields: Fields<"OFFER">
}

export class AgentOffers {
  readonly names = new ServiceNames()
  readonly #client: LinkClient
  readonly #log: Log
  readonly #offers = new Map<number, HeldOffer>()
  #next = 1

  constructor(client: LinkClient, log: Log) {
    this.#client = client
    this.#log = log
  }

  /** Services that commands wait with; not those that the agent answers itself. */
  get services(): string[] {
    return [...this.#offers.values()].map(({ fields }) => fields.service).filter((name) => !isReserved(name))
  }

  /** @throws MvmError `refused` for a name that is another user's, or the agent's own; as the MVM said. */
  async register(session: CommandSession, offer: Omit<Fields<"OFFER">, "offerId">): Promise<number> {
    if (isReserved(offer.service) && !session.isOwn) {
      throw new MvmError("refused", `service ${offer.service}: the agent answers it itself`, {
        hint: "take another name with --service",
      })
    }
    this.names.claim(offer.service, offer.program.uid, session)
    const fields = { ...offer, offerId: this.#next++ }
    this.#offers.set(fields.offerId, { session, fields })
    try {
      await this.#tell(fields)
    } catch (error) {
      this.#offers.delete(fields.offerId)
      throw error
    }
    return fields.offerId
  }

  /** Ids of what `session` waits with. */
  of(session: CommandSession): number[] {
    return [...this.#offers.values()]
      .filter((offer) => offer.session === session)
      .map(({ fields }) => fields.offerId)
  }

  /** Takes it off; undefined when it is gone already. */
  take(offerId: number): HeldOffer | undefined {
    const offer = this.#offers.get(offerId)
    this.#offers.delete(offerId)
    return offer
  }

  /** A new life of the MVM knows none of them. */
  again(): void {
    for (const { fields } of this.#offers.values()) {
      this.#tell(fields).catch((error: unknown) => {
        this.#log.warn("offer_again", { message: asMvmError(error).message })
      })
    }
  }

  async #tell(fields: Fields<"OFFER">): Promise<void> {
    await this.#client.link.request("OFFER", fields, "DONE", { timeoutMs: ANSWER_MS })
  }
}
