/**
 * @module guest/services/side
 *
 * The stream beside a run's standard input and output: signals and window sizes one way, standard error and the
 * status the other. Frames here, because several things share it and none of them is bulk.
 *
 *     u16 big-endian  length of the message
 *     ...             one message of the table
 */

import { MvmError } from "../../lib/errors.ts"
import { bytesUpTo, oneOf, optional, text, u16, u8 } from "../../wire/schema.ts"
import {
  decodeMessage,
  defineTable,
  encodeMessage,
  row,
  type FieldsOf,
  type Message,
  type MessageName,
} from "../../wire/table.ts"
import type { ByteDuplex } from "../streams/byte-duplex.ts"

const LENGTH_BYTES = 2
/** The longest piece of standard error in one message. */
export const MAX_ERRORS_BYTES = 32 * 1024

/** Signals that are passed on; a window's size has a message of its own. */
export const SIGNALS = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"] as const
export type PassedSignal = (typeof SIGNALS)[number]

export const SIDE_MESSAGES = defineTable({
  SIGNAL: row({ id: 1, from: "asker", since: 1, maxBytes: 64, fields: { name: oneOf(SIGNALS) } }),
  SIZE: row({ id: 2, from: "asker", since: 1, maxBytes: 64, fields: { columns: u16, rows: u16 } }),
  ERRORS: row({
    id: 3,
    from: "answerer",
    since: 1,
    maxBytes: MAX_ERRORS_BYTES + 32,
    fields: { bytes: bytesUpTo(MAX_ERRORS_BYTES) },
    purpose: "standard error",
  }),
  EXITED: row({
    id: 4,
    from: "answerer",
    since: 1,
    maxBytes: 64,
    fields: { status: u8, signal: optional(text(16)) },
    purpose: "the last message; 128 + n where signal n ended the run",
  }),
})

export type SideName = MessageName<typeof SIDE_MESSAGES>
export type SideFields<N extends SideName> = FieldsOf<typeof SIDE_MESSAGES, N>
export type SideMessage = Message<typeof SIDE_MESSAGES>

export class Side {
  readonly #stream: ByteDuplex
  readonly #peer: "asker" | "answerer"
  #rest: Uint8Array = new Uint8Array(0)

  /** @param me which side this end is */
  constructor(stream: ByteDuplex, me: "asker" | "answerer") {
    this.#stream = stream
    this.#peer = me === "asker" ? "answerer" : "asker"
  }

  async send<N extends SideName>(name: N, fields: SideFields<N>): Promise<void> {
    const message = encodeMessage(SIDE_MESSAGES, name, 0, fields)
    const framed = new Uint8Array(LENGTH_BYTES + message.length)
    new DataView(framed.buffer).setUint16(0, message.length)
    framed.set(message, LENGTH_BYTES)
    await this.#stream.write(framed)
  }

  end(): Promise<void> {
    return this.#stream.end()
  }

  /**
   * The next message, null after the last.
   *
   * Trust: the bytes are the peer's; what is kept of them is one message at most and what came with it.
   *
   * @throws MvmError `protocol` for what is no message of the other side, `truncated` for a part of one.
   */
  async receive(): Promise<SideMessage | null> {
    for (;;) {
      const message = this.#take()
      if (message) return message
      const more = await this.#stream.read()
      if (more === null) {
        if (this.#rest.length > 0)
          throw new MvmError("truncated", "the run's side stream ends within a message")
        return null
      }
      this.#rest = this.#rest.length === 0 ? more : Buffer.concat([this.#rest, more])
    }
  }

  #take(): SideMessage | undefined {
    const { length } = this.#rest
    if (length < LENGTH_BYTES) return undefined
    const end = LENGTH_BYTES + new DataView(this.#rest.buffer, this.#rest.byteOffset).getUint16(0)
    if (length < end) return undefined
    const message = decodeMessage(SIDE_MESSAGES, this.#rest.subarray(LENGTH_BYTES, end), this.#peer)
    this.#rest = this.#rest.subarray(end)
    return message
  }
}
