/**
 * @module guest/opening-set
 *
 * Channels between ALLOCATED and the command that gets them, and what is said of them meanwhile.
 */

import { toHex } from "../lib/bytes.ts"
import type { MvmError } from "../lib/errors.ts"
import type { Fields, NamedMessage } from "../wire/link.ts"
import type { LocalFields } from "../wire/local-link.ts"

/** FIN and RECEIPT of one direction each. */
const MAX_EARLY = 2

export type PeerEnd = NamedMessage<"FIN"> | NamedMessage<"RECEIPT">

export interface Opening {
  readonly key: string
  /** The MVM said OPENED: the region is reserved until this end lets go of it. */
  isOpen: boolean
  ended: MvmError | undefined
  readonly early: PeerEnd[]
  /** What this end's own proof took */
  quoteUs: number
  onStages(stages: LocalFields<"STAGES">): void
}

export class OpeningSet {
  readonly #openings = new Map<string, Opening>()

  begin(channelId: Uint8Array, onStages: Opening["onStages"]): Opening {
    const key = toHex(channelId)
    const opening: Opening = { key, isOpen: false, ended: undefined, early: [], quoteUs: 0, onStages }
    this.#openings.set(opening.key, opening)
    return opening
  }

  over({ key }: Opening): void {
    this.#openings.delete(key)
  }

  /** The MVM ended a channel that no command has yet. @returns whether it is being opened here */
  end(channelId: Uint8Array, error: MvmError): boolean {
    const opening = this.#openings.get(toHex(channelId))
    if (opening) opening.ended ??= error
    return opening !== undefined
  }

  /** How long the MVM's steps took. */
  told({ channelId, ...stages }: Fields<"STAGES">): void {
    const opening = this.#openings.get(toHex(channelId))
    opening?.onStages({ ...stages, quoteUs: opening.quoteUs })
  }

  /** Keeps what the peer says of its end until the channel has its command: a short transfer is over by then. */
  hold(message: PeerEnd): void {
    const early = this.#openings.get(toHex(message.fields.channelId))?.early
    if (early && early.length < MAX_EARLY) early.push(message)
  }
}
