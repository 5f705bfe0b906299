/**
 * @module guest/services/socket-service
 *
 * A service that is a program listening elsewhere: each call becomes a connection to its socket.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { connectTo, type Address } from "../streams/address.ts"
import { carry } from "../streams/join.ts"
import { taking, type EndOfInput } from "./end-of-input.ts"
import { brokenBy, type ServiceHandler } from "./service.ts"

export function socketService(address: Address, endOfInput: EndOfInput): ServiceHandler {
  return async ({ stream, run, broken }) => {
    const connection = await connectTo(address, broken).catch((cause: unknown) => {
      // Where the service's own socket is is nothing for the caller.
      throw new MvmError("unreachable", "the service does not answer", { cause })
    })
    const leave = (): void => connection.reset(brokenBy(broken))
    broken.addEventListener("abort", leave)
    if (broken.aborted) leave()
    const close = (): void => connection.stop(new MvmError("sink", "the caller has ended"))
    try {
      await Promise.all([carry(stream, taking(connection, endOfInput, close)), carry(connection, stream)])
    } catch (error) {
      throw broken.aborted ? brokenBy(broken) : asMvmError(error)
    } finally {
      broken.removeEventListener("abort", leave)
    }
    // A connection has no status of its own: it came to its end.
    await run?.side.send("EXITED", { status: 0 })
    await run?.side.end()
  }
}
