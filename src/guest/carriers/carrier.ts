/**
 * @module guest/carriers/carrier
 *
 * What the agent does for a command that does not map the channel's memory: it carries sealed records between the
 * command's socket and the place where they travel. It holds no keys.
 */

import type { NamedMessage } from "../../wire/link.ts"

/** The command's end of a carrier. */
export interface CommandPort {
  /** A record for the command. */
  record(record: Uint8Array): void
  /** Records of the command's were taken, up to here. */
  taken(takenBytes: number): void
  /** The channel cannot go on. */
  fail(error: unknown): void
}

export interface Carrier {
  /**
   * A record that the command sealed.
   *
   * @throws MvmError `protocol` beyond its window, `record` for one of a wrong length.
   */
  fromCommand(record: Uint8Array): void
  /** The command took records up to here. @throws MvmError `protocol` for more than it was given. */
  takenByCommand(takenBytes: number): void
  /** What the other end's agent said, by way of the MVM. */
  fromPeer?(message: NamedMessage<"RECORD"> | NamedMessage<"CREDIT"> | NamedMessage<"RESUME">): void
  /** The link to the MVM began anew, with this channel. */
  relinked?(): void
  /** The other end asks to be looked after. */
  kicked?(): void
  /** Nothing is carried any more, and no memory is touched. */
  close(): void
}
