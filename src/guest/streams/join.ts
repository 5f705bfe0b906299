/**
 * @module guest/streams/join
 *
 * Two streams of bytes made one: what either brings, the other takes. Each direction ends by itself, so half-close
 * passes through.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { recycle } from "./block-pool.ts"
import type { ByteDuplex } from "./byte-duplex.ts"

export interface JoinableDuplex extends ByteDuplex {
  /** Nothing more is read here; what is written goes on. Idempotent. */
  stop(error: MvmError): void
  /** Calls `listener` once the other end reads no more, where that can be known before something is written. */
  whenUnread?(listener: (error: MvmError) => void): void
}

/**
 * Resolves when both directions have ended, or one side wants no more and the other has said all.
 *
 * @throws MvmError as the side that broke off did; the other one is reset with the same.
 */
export async function join(one: JoinableDuplex, other: JoinableDuplex): Promise<void> {
  await Promise.all([carry(one, other), carry(other, one)])
}

/**
 * One direction of {@link join}: resolves when `from` has ended or was told to stop, and `to` knows it; or when `to`
 * takes no more, and `from` knows that.
 *
 * @throws MvmError as the side that broke off did.
 */
export async function carry(from: JoinableDuplex, to: JoinableDuplex): Promise<void> {
  // A read that waits would wait for something that nobody wants.
  to.whenUnread?.((error) => from.stop(error))
  try {
    for (;;) {
      const bytes = await readUntilStopped(from)
      if (bytes === null) return await to.end()
      await to.write(bytes)
      recycle(bytes)
    }
  } catch (error) {
    const failure = asMvmError(error)
    // Its reader has gone, which says nothing of the other direction.
    if (failure.code === "sink") return from.stop(failure)
    from.reset(failure)
    to.reset(failure)
    throw failure
  }
}

async function readUntilStopped(from: JoinableDuplex): Promise<Uint8Array | null> {
  try {
    return await from.read()
  } catch (error) {
    if (error instanceof MvmError && error.code === "sink") return null
    throw error
  }
}
