/**
 * @module guest/copy/wire
 *
 * The messages of a copy on one stream: each a length of 32 bits, big-endian, and the message. Behind a DATA
 * message come its bytes as they are.
 *
 * What is sent is collected and goes out with the next turn of the event loop, so that many small messages travel
 * together.
 */

import { MvmError } from "../../lib/errors.ts"
import { decodeMessage, encodeMessage } from "../../wire/table.ts"
import type { ByteDuplex } from "../streams/byte-duplex.ts"
import { ByteInput } from "./byte-input.ts"
import {
  COPY_MESSAGES,
  MAX_FRAME_BYTES,
  type CopyFields,
  type CopyMessage,
  type CopyName,
  type CopySide,
} from "./messages.ts"

const LENGTH_BYTES = 4
/** Content up to this length is collected with the messages; more is written from where it is. */
const COLLECT_BYTES = 16 * 1024
/** Past this, who sends waits until what was sent is on its way. */
const BACKLOG_BYTES = 64 * 1024

type Other<S extends CopySide> = S extends "sender" ? "receiver" : "sender"
/** What side `S` hears; null at the end of the stream. */
type Heard<S extends CopySide> = CopyMessage<Other<S>> | null

export class CopyWire<S extends CopySide> {
  readonly #stream: ByteDuplex
  readonly #input: ByteInput
  readonly #peer: Other<S>
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #writing: Promise<void> | undefined
  #isScheduled = false

  constructor(stream: ByteDuplex, side: S, input = new ByteInput(stream)) {
    this.#stream = stream
    this.#input = input
    this.#peer = (side === "sender" ? "receiver" : "sender") as Other<S>
  }

  /** So much waits to be written that the caller should {@link flush} before it sends more. */
  get isFull(): boolean {
    return this.#waitingBytes >= BACKLOG_BYTES
  }

  send<N extends CopyName<S>>(name: N, fields: CopyFields<N>): void {
    this.#push(frameOf(encodeMessage(COPY_MESSAGES, name, 0, fields)))
  }

  /** A piece of content, which may be reused once this has resolved. */
  async sendContent(bytes: Uint8Array): Promise<void> {
    this.#push(frameOf(encodeMessage(COPY_MESSAGES, "DATA", 0, { lengthBytes: bytes.length })))
    const isSmall = bytes.length <= COLLECT_BYTES
    this.#push(isSmall ? bytes.slice() : bytes)
    if (!isSmall || this.isFull) await this.flush()
  }

  /** Resolves when all that was sent is on its way. @throws MvmError as the stream does. */
  flush(): Promise<void> {
    if (this.#writing === undefined && this.#waiting.length > 0) this.#writing = this.#drain()
    return this.#writing ?? Promise.resolve()
  }

  /**
   * The next message, or null at the end of the stream.
   *
   * Trust: the peer's bytes. The length is bounded before anything is waited for, and the table decodes.
   *
   * @throws MvmError `protocol`, `truncated`, and what the stream throws.
   */
  async receive(): Promise<Heard<S>> {
    const payload = await receiveFrame(this.#input)
    if (payload === null) return null
    const message: unknown = decodeMessage(COPY_MESSAGES, payload, this.#peer as CopySide)
    return message as Heard<S>
  }

  /** The bytes behind a DATA message, in pieces as they come. */
  async content(lengthBytes: number, take: (piece: Uint8Array) => void): Promise<void> {
    for (let left = lengthBytes; left > 0;) {
      const piece = await this.#input.some(left)
      take(piece)
      left -= piece.length
    }
  }

  /** Nothing more is sent from here. */
  async end(): Promise<void> {
    await this.flush()
    await this.#stream.end()
  }

  /** Breaks the copy off, at both ends for the same reason. */
  reset(error: MvmError): void {
    this.#stream.reset(told(error))
  }

  #push(bytes: Uint8Array): void {
    this.#waiting.push(bytes)
    this.#waitingBytes += bytes.length
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      // A stream that takes no more brings no more either: its reader says why.
      this.flush().catch(() => {})
    })
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const parts = this.#waiting
      this.#waiting = []
      this.#waitingBytes = 0
      for (const bytes of joined(parts)) await this.#stream.write(bytes)
    }
    // Here and not a turn later: what is pushed from now on needs another write.
    this.#writing = undefined
  }
}

/** What failed inside is told by code alone: its words may name what is this machine's own. */
export function told(error: MvmError): MvmError {
  return error.code === "internal" ? new MvmError("peer_failed", "the copy failed") : error
}

/**
 * The first message of a stream, before it is known who sends and who receives.
 *
 * Trust: the peer's bytes.
 *
 * @throws MvmError `protocol` for any other message, `truncated`
 */
export async function receiveRequest(input: ByteInput): Promise<CopyFields<"REQUEST">> {
  const payload = await receiveFrame(input)
  if (payload === null) throw new MvmError("truncated", "the stream ended before a request")
  const message = decodeMessage(COPY_MESSAGES, payload, "sender")
  if (message.name !== "REQUEST") throw new MvmError("protocol", `${message.name} before REQUEST`)
  return message.fields
}

async function receiveFrame(input: ByteInput): Promise<Uint8Array | null> {
  if (!input.holds(LENGTH_BYTES) && !(await input.has(LENGTH_BYTES))) return null
  const prefix = input.take(LENGTH_BYTES)
  const lengthBytes = new DataView(prefix.buffer, prefix.byteOffset).getUint32(0)
  if (lengthBytes > MAX_FRAME_BYTES) throw new MvmError("protocol", `a message of ${lengthBytes} bytes`)
  if (!input.holds(lengthBytes) && !(await input.has(lengthBytes))) {
    throw new MvmError("truncated", "the stream ended in the middle of a message")
  }
  return input.take(lengthBytes)
}

function frameOf(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(LENGTH_BYTES + payload.length)
  new DataView(frame.buffer).setUint32(0, payload.length)
  frame.set(payload, LENGTH_BYTES)
  return frame
}

/** Small parts as one write, large ones as they are. */
function* joined(parts: readonly Uint8Array[]): Generator<Uint8Array> {
  let from = 0
  const collected = (to: number): Uint8Array => Buffer.concat(parts.slice(from, to))
  for (const [at, part] of parts.entries()) {
    if (part.length <= COLLECT_BYTES) continue
    if (at > from) yield collected(at)
    yield part
    from = at + 1
  }
  if (from < parts.length) yield collected(parts.length)
}
