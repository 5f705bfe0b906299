/**
 * @module guest/service-names
 *
 * Which user of this machine a service name belongs to: the one that registered it, as long as any of the commands
 * that did is there. So an ordinary user does not take over what another one serves.
 */

import { MvmError } from "../lib/errors.ts"

interface Owner {
  readonly uid: number
  readonly holders: Set<object>
}

export class ServiceNames {
  readonly #owners = new Map<string, Owner>()

  /**
   * `holder` registers `service` for user `uid`, until it lets go of all it has.
   *
   * @throws MvmError `refused` when the name belongs to another user.
   */
  claim(service: string, uid: number, holder: object): void {
    const owner = this.#owners.get(service)
    if (!owner) {
      this.#owners.set(service, { uid, holders: new Set([holder]) })
    } else if (owner.uid === uid) {
      owner.holders.add(holder)
    } else {
      throw new MvmError("refused", `service ${service} belongs to another user of this machine`, {
        hint: "take another name with --service",
      })
    }
  }

  /** Everything that `holder` has registered is its no more. */
  release(holder: object): void {
    for (const [service, { holders }] of this.#owners) {
      if (holders.delete(holder) && holders.size === 0) this.#owners.delete(service)
    }
  }
}
