/**
 * @module guest/streams/byte-duplex
 *
 * What every service and every copy is written against: one reliable, ordered stream of bytes each way, with
 * half-close and flow control. A session carries many of them.
 */

import type { MvmError } from "../../lib/errors.ts"

export interface ByteDuplex {
  /**
   * The next bytes that came, at least one; null after the other end said that it will write no more. The caller
   * owns them.
   *
   * @throws MvmError once the stream was reset, or its session ended before it did.
   */
  read(): Promise<Uint8Array | null>
  /**
   * Resolves when all of `bytes` are on their way under flow control; they may be reused then.
   *
   * @throws MvmError as {@link read} does, and `sink` when the other end will read no more.
   */
  write(bytes: Uint8Array): Promise<void>
  /** No more will be written from here; the other direction goes on. */
  end(): Promise<void>
  /** Breaks both directions off; the other end's calls fail with `error`. Idempotent. */
  reset(error: MvmError): void
}
