/**
 * @module guest/carriers/carriers
 *
 * All that the agent carries, and for whom. Each takes up to two windows of the agent's memory, so an ordinary user
 * has only so many at once.
 */

import { MvmError } from "../../lib/errors.ts"
import type { BulkQueue } from "../../wire/bulk-queue.ts"
import type { AgentChannel } from "../agent-channels.ts"
import type { Carrier, CommandPort } from "./carrier.ts"
import { RelayCarrier } from "./relay-carrier.ts"
import { RingCarrier } from "./ring-carrier.ts"

const MAX_OF_USER = 32

/** The command of a channel. */
export interface Carried {
  readonly uid: number
  readonly command: CommandPort
  /** Wakes the other end. */
  kick(): void
}

export class Carriers {
  readonly #bulk: BulkQueue
  /** The user behind each. */
  readonly #live = new Map<Carrier, number>()

  constructor(bulk: BulkQueue) {
    this.#bulk = bulk
  }

  /** Whether a program of this user maps the memory itself, which shows it what others have there before or after. */
  mayMap(uid: number): boolean {
    return uid === 0 || uid === process.geteuid?.()
  }

  /** @throws MvmError `busy` for more than a user may have, and as {@link RingCarrier}. */
  begin(channel: AgentChannel, { uid, command, kick }: Carried): Carrier {
    const { channelId, key, asker, region } = channel
    const count = [...this.#live.values()].filter((one) => one === uid).length
    if (!this.mayMap(uid) && count >= MAX_OF_USER) {
      throw new MvmError("busy", `the agent carries ${count} channels of this user, and no more`)
    }
    const carrier = region
      ? new RingCarrier({ region, asker, command, kick })
      : new RelayCarrier({ channelId, key, asker, bulk: this.#bulk, command })
    this.#live.set(carrier, uid)
    return carrier
  }

  /** Nothing of it is carried any more. */
  end(carrier: Carrier | undefined): void {
    if (!carrier) return
    this.#live.delete(carrier)
    carrier.close()
  }
}
