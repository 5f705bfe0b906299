/**
 * @module guest/services/limits
 *
 * What one service lets its callers use: runs at once, time and bytes of each.
 */

import { MvmError } from "../../lib/errors.ts"
import { formatDuration, formatSize } from "../../lib/units.ts"
import type { JoinableDuplex } from "../streams/join.ts"

export interface ServiceLimits {
  /** Calls at once, of all callers together */
  readonly maxRuns: number
  /** Of one call; undefined: as long as it takes */
  readonly maxMs: number | undefined
  /** Of one call, in each direction, standard error with the output; undefined: any number */
  readonly maxBytes: number | undefined
}

export const NO_LIMITS: ServiceLimits = { maxRuns: Infinity, maxMs: undefined, maxBytes: undefined }

/** Counts what passes, and breaks both directions off beyond `maxBytes` in one. */
export class BoundedDuplex implements JoinableDuplex {
  readonly #stream: JoinableDuplex
  readonly #maxBytes: number
  #readBytes = 0
  #writtenBytes = 0

  constructor(stream: JoinableDuplex, maxBytes: number) {
    this.#stream = stream
    this.#maxBytes = maxBytes
  }

  async read(): Promise<Uint8Array | null> {
    const bytes = await this.#stream.read()
    if (bytes !== null) this.#count((this.#readBytes += bytes.length))
    return bytes
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.countWritten(bytes.length)
    await this.#stream.write(bytes)
  }

  /** Counts what is given beside the stream. @throws MvmError `too_large` */
  countWritten(bytes: number): void {
    this.#count((this.#writtenBytes += bytes))
  }

  end(): Promise<void> {
    return this.#stream.end()
  }

  stop(error: MvmError): void {
    this.#stream.stop(error)
  }

  whenUnread(listener: (error: MvmError) => void): void {
    this.#stream.whenUnread?.(listener)
  }

  reset(error: MvmError): void {
    this.#stream.reset(error)
  }

  #count(bytes: number): void {
    if (bytes <= this.#maxBytes) return
    const error = new MvmError(
      "too_large",
      `the service takes and gives ${formatSize(this.#maxBytes)} at a time`,
    )
    this.#stream.reset(error)
    throw error
  }
}

export function timeIsOver(maxMs: number): MvmError {
  return new MvmError("timeout", `the service gives a call ${formatDuration(maxMs)}`)
}
