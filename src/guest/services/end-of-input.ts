/**
 * @module guest/services/end-of-input
 *
 * What the end of the caller's input means to a service, as its owner chooses.
 */

import type { JoinableDuplex } from "../streams/join.ts"

/** It is passed on, ends the call, or is kept from the service. */
export const ENDS_OF_INPUT = ["close", "end", "ignore"] as const
export type EndOfInput = (typeof ENDS_OF_INPUT)[number]

/** `to` with that meaning of its end. @param endCall what ends the call */
export function taking(to: JoinableDuplex, endOfInput: EndOfInput, endCall: () => void): JoinableDuplex {
  return {
    read: () => to.read(),
    write: (bytes) => to.write(bytes),
    async end() {
      if (endOfInput === "ignore") return
      if (endOfInput === "end") endCall()
      await to.end()
    },
    stop: (error) => to.stop(error),
    reset: (error) => to.reset(error),
  }
}
