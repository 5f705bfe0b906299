/**
 * @module wire/local-link
 *
 * One end of the agent's local socket: the same frames as on the link, without authentication, because the
 * kernel already says who is connected.
 */

import { MvmError } from "../lib/errors.ts"
import { FrameReader, encodeFrame } from "./frame.ts"
import { LOCAL_MESSAGES } from "./local-messages.ts"
import { decodeMessage, encodeMessage, type FieldsOf, type Message, type MessageName } from "./table.ts"

export type LocalSide = "client" | "agent"
type Opposite<S extends LocalSide> = S extends "client" ? "agent" : "client"
export type LocalMessage<S extends LocalSide> = Message<typeof LOCAL_MESSAGES, S>
export type LocalName = MessageName<typeof LOCAL_MESSAGES>
export type LocalFields<N extends LocalName> = FieldsOf<typeof LOCAL_MESSAGES, N>

/** The message that wakes a sleeper is always these bytes: whoever slept runs cold, and need not take them apart. */
const KICK = { name: "KICK", requestId: 0, fields: {} } as const
const KICK_FRAME = Buffer.from(encodeFrame(encodeMessage(LOCAL_MESSAGES, "KICK", 0, {})))

export class LocalLink<S extends LocalSide> {
  readonly #peer: Opposite<S>
  readonly #write: (bytes: Uint8Array) => void
  readonly #onMessage: (message: LocalMessage<Opposite<S>>) => void
  readonly #reader = new FrameReader()

  constructor(
    side: S,
    write: (bytes: Uint8Array) => void,
    onMessage: (message: LocalMessage<Opposite<S>>) => void,
  ) {
    this.#peer = (side === "client" ? "agent" : "client") as Opposite<S>
    this.#write = write
    this.#onMessage = onMessage
  }

  send<N extends LocalName>(name: N, fields: LocalFields<N>): void {
    this.#write(encodeFrame(encodeMessage(LOCAL_MESSAGES, name, 0, fields)))
  }

  kick(): void {
    this.#write(KICK_FRAME)
  }

  /** @throws MvmError `protocol` or `frame`: a local stream loses nothing, so anything odd ends it. */
  receive(chunk: Uint8Array): void {
    if (this.#reader.pendingBytes === 0 && KICK_FRAME.equals(chunk)) {
      return this.#onMessage(KICK as LocalMessage<"client"> as LocalMessage<Opposite<S>>)
    }
    for (const frame of this.#reader.push(chunk)) {
      const message: unknown = decodeMessage(LOCAL_MESSAGES, frame.payload, this.#peer)
      this.#onMessage(message as LocalMessage<Opposite<S>>)
    }
    if (this.#reader.droppedBytes > 0)
      throw new MvmError("frame", "bytes that are no frame on the local socket")
  }
}
