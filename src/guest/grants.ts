/**
 * @module guest/grants
 *
 * Opens the grants that the MVM seals to this member's vTPM. The vTPM is asked once in an epoch of the link.
 */

import { MvmError } from "../lib/errors.ts"
import { GrantOpener, type Grant, type GrantContext } from "../tcb/grant.ts"
import type { Membership } from "./link-client.ts"
import type { GuestVtpm } from "./vtpm.ts"

export class Grants {
  readonly #vtpm: GuestVtpm
  #membership: Membership | undefined
  #opener: Promise<GrantOpener> | undefined

  constructor(vtpm: GuestVtpm) {
    this.#vtpm = vtpm
  }

  /** A new epoch. Asks the vTPM while nobody waits for its answer. */
  begin(membership: Membership): void {
    this.end()
    this.#membership = membership
    this.#ask(membership).catch(() => {})
  }

  /** No grant of this epoch comes any more. */
  end(): void {
    void this.#opener?.then(
      (opener) => opener.wipe(),
      () => {},
    )
    this.#membership = undefined
    this.#opener = undefined
  }

  /**
   * @throws MvmError `integrity` when it was not sealed to this member, in this epoch, for this; `aborted` when
   *   `membership` is over; `protocol`, `tpm`
   */
  async open(membership: Membership, about: GrantContext, sealed: Uint8Array): Promise<Grant> {
    if (membership !== this.#membership)
      throw new MvmError("aborted", "the link to the MVM was lost meanwhile")
    return (await this.#ask(membership)).open(about, sealed)
  }

  #ask({ vmUuid: recipientUuid, epoch, enc }: Membership): Promise<GrantOpener> {
    if (this.#opener) return this.#opener
    const opener = GrantOpener.begin(this.#vtpm.recipient, { recipientUuid, epoch }, enc)
    this.#opener = opener
    // A vTPM that failed once may be asked again.
    opener.catch(() => {
      if (this.#opener === opener) this.#opener = undefined
    })
    return opener
  }
}
