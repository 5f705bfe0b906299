/**
 * @module test/faults/commands
 *
 * What the two commands of a transfer are given, and what they may end with.
 */

import type { Running } from "../integration/host.ts"
import type { Fault } from "./point.ts"

const SLOW_PIECE = 100_000

/** Statuses a command may end with whatever dies beside it: done, unreachable, interrupted by us, killed by us. */
const HONEST_STATUSES = new Set([0, 3, 130, 137])
/** Without its vTPM a command's own machine has failed it. */
const WITHOUT_VTPM_STATUSES = new Set([...HONEST_STATUSES, 1])
/** A cut or lost frame may also be a broken protocol to somebody. */
const DISTURBED_STATUSES = new Set([...HONEST_STATUSES, 4, 5, 7])

export function allowedStatuses(fault: Fault): ReadonlySet<number> {
  if (fault.kind !== "kill") return DISTURBED_STATUSES
  return fault.victim.startsWith("vtpm") ? WITHOUT_VTPM_STATUSES : HONEST_STATUSES
}

/** Bytes that differ from place to place and from round to round. */
export function contentOf(round: number, bytes: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4))
  let state = (round * 2654435761) >>> 0 || 1
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[at] = state
  }
  return new Uint8Array(words.buffer, 0, bytes)
}

/** Feeds a sender piece by piece, so that a re-measurement falls into the transfer. */
export async function feed(sender: Running, content: Uint8Array): Promise<void> {
  const stdin = sender.process.stdin as Bun.FileSink
  try {
    for (let at = 0; at < content.length; at += SLOW_PIECE) {
      await stdin.write(content.subarray(at, at + SLOW_PIECE))
      await stdin.flush()
      await Bun.sleep(100)
    }
    await stdin.end()
  } catch {
    // The sender is gone; its status tells.
  }
}
