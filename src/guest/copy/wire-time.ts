/**
 * @module guest/copy/wire-time
 *
 * Times of files on the wire. The encoding has no negative numbers, so seconds are counted from 2^40 s before 1970;
 * what lies further away is no time a file system here can hold, and becomes the nearest that is.
 */

import { MvmError } from "../../lib/errors.ts"
import type { FileTime } from "../../platform/folder.ts"
import type { WireTime } from "./messages.ts"

const BIAS_SECONDS = 2 ** 40
const NANOSECONDS = 1_000_000_000

export function toWire({ seconds, nanoseconds }: FileTime): WireTime {
  const secondsBiased = Math.min(Math.max(0, seconds + BIAS_SECONDS), 2 * BIAS_SECONDS)
  return { secondsBiased, nanoseconds }
}

/** Trust: a peer's. @throws MvmError `protocol` for what {@link toWire} does not make. */
export function fromWire({ secondsBiased, nanoseconds }: WireTime): FileTime {
  if (secondsBiased > 2 * BIAS_SECONDS)
    throw new MvmError("protocol", "time.secondsBiased: no time of a file")
  if (nanoseconds >= NANOSECONDS) throw new MvmError("protocol", "time.nanoseconds: a second or more")
  return { seconds: secondsBiased - BIAS_SECONDS, nanoseconds }
}
