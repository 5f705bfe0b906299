/**
 * @module wire/link
 *
 * One end of a link: frames in, messages out. Both ends use it; the table says who may send what.
 *
 * ```
 *            offer(keys)             first frame that opens under them
 *   (none) ─────────────► pending ───────────────────────────────────► current
 *                            ▲                                            │
 *                            └───────────── offer(keys) ◄─────────────────┘
 * ```
 *
 * New keys replace the current ones only when a frame proves that the other end holds them too, so a HELLO
 * injected into the byte stream cannot cut a working link.
 *
 * Trust: every byte given to {@link Link.receive} is hostile. A frame that does not open is dropped and counted.
 */

import { MvmError, asMvmError, isErrorCode } from "../lib/errors.ts"
import { utf8 } from "../lib/bytes.ts"
import { FrameReader, encodeFrame } from "./frame.ts"
import { FrameAuthenticator } from "./link-auth.ts"
import { MESSAGES, UNAUTHENTICATED } from "./messages.ts"
import { Repeated } from "./repeated.ts"
import { decodeMessage, encodeMessage, type FieldsOf, type Message } from "./table.ts"

export type LinkMessage = Message<typeof MESSAGES>
export type MessageName = LinkMessage["name"]
export type Fields<N extends MessageName> = FieldsOf<typeof MESSAGES, N>
export type NamedMessage<N extends MessageName> = Extract<LinkMessage, { name: N }>

export interface LinkHandlers {
  /** A message under the current keys that answers no request of ours. */
  onMessage(message: LinkMessage): void
  /** HELLO, WELCOME or POKE outside the authenticated stream. */
  onOpenMessage(message: LinkMessage): void
  /** The pending keys became the current ones. */
  onEpoch(epoch: Uint8Array): void
  /** A frame of the stream did not open: frames were lost or another epoch is spoken; a HELLO is due. */
  onDesync?(): void
}

export interface LinkCounters {
  framesIn: number
  framesOut: number
  refused: number
}

export interface RequestOptions<A extends MessageName> {
  readonly timeoutMs: number
  onId?(requestId: number): void
  /** Called when the answer arrives, before anything behind it is looked at: for what must happen in that order. */
  onAnswer?(message: NamedMessage<A>): void
}

interface Waiting {
  onAnswer(message: LinkMessage): void
  resolve(message: LinkMessage): void
  reject(error: MvmError): void
  timer: ReturnType<typeof setTimeout> | undefined
}

interface Keys {
  epoch: Uint8Array
  authenticator: FrameAuthenticator
}

const MAX_WAITING = 4096

/** A frame whose rest did not come within this time never comes: its sender restarted in the middle. */
const TORN_FRAME_MS = 1000

export class Link {
  readonly counters: LinkCounters = { framesIn: 0, framesOut: 0, refused: 0 }
  readonly #side: "guest" | "mvm"
  readonly #write: (bytes: Uint8Array) => void
  readonly #handlers: LinkHandlers
  readonly #reader = new FrameReader()
  readonly #repeated = new Repeated<LinkMessage>()
  readonly #waiting = new Map<number, Waiting>()
  #nextRequest = 1
  #lastBytesMs = 0
  #current: Keys | undefined
  #pending: Keys | undefined

  constructor(side: "guest" | "mvm", write: (bytes: Uint8Array) => void, handlers: LinkHandlers) {
    this.#side = side
    this.#write = write
    this.#handlers = handlers
  }

  /** The epoch in force, or undefined before the first authenticated frame. */
  get epoch(): Uint8Array | undefined {
    return this.#current?.epoch
  }

  /** Hold `keys` ready: the first frame that opens under them makes them current. */
  offerKeys(epoch: Uint8Array, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    this.#pending = { epoch, authenticator: new FrameAuthenticator({ sendKey, receiveKey, epoch }) }
  }

  /** Make `keys` current at once: for the end that knows the other one holds them. */
  adoptKeys(epoch: Uint8Array, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    this.offerKeys(epoch, sendKey, receiveKey)
    this.#promote()
  }

  /** Bytes from the other end, in any pieces. */
  receive(chunk: Uint8Array): void {
    const now = performance.now()
    const torn = this.#reader.pendingBytes > 0 && now - this.#lastBytesMs > TORN_FRAME_MS
    this.#lastBytesMs = now
    const frames = torn ? [...this.#reader.abandon(), ...this.#reader.push(chunk)] : this.#reader.push(chunk)
    for (const frame of frames) {
      this.counters.framesIn += 1
      try {
        this.#dispatch(frame.payload, frame.authenticated)
      } catch (error) {
        if (!(error instanceof MvmError)) throw error
        this.counters.refused += 1
      }
    }
  }

  /** @throws MvmError `unreachable` before the link is authenticated. */
  send<N extends MessageName>(name: N, fields: Fields<N>, requestId = 0): void {
    const encode = (): Uint8Array => encodeMessage(MESSAGES, name, requestId, fields)
    const message =
      name === "KICK" && requestId === 0 ? this.#repeated.encoded(fields as object, encode) : encode()
    if (UNAUTHENTICATED.has(name)) {
      this.counters.framesOut += 1
      this.#write(encodeFrame(message))
      return
    }
    if (!this.#current) throw new MvmError("unreachable", "the link is not authenticated")
    this.counters.framesOut += 1
    this.#write(encodeFrame(this.#current.authenticator.seal(message), { auth: true }))
  }

  /**
   * Send a request and wait for the message that answers it.
   *
   * @throws MvmError the peer's FAILED as an error, `timeout`, or `unreachable` when the link ends first.
   */
  async request<N extends MessageName, A extends MessageName>(
    name: N,
    fields: Fields<N>,
    answer: A,
    options: RequestOptions<A>,
  ): Promise<NamedMessage<A>> {
    if (this.#waiting.size >= MAX_WAITING) throw new MvmError("busy", "too many requests on this link")
    const requestId = this.#nextRequest
    this.#nextRequest = requestId >= 0x7fffffff ? 1 : requestId + 1
    const message = await new Promise<LinkMessage>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(requestId)
        reject(new MvmError("timeout", `no answer to ${name} within ${options.timeoutMs} ms`))
      }, options.timeoutMs)
      const onAnswer = (message: LinkMessage): void => {
        if (message.name === answer) options.onAnswer?.(message as NamedMessage<A>)
      }
      this.#waiting.set(requestId, { onAnswer, resolve, reject, timer })
      try {
        this.send(name, fields, requestId)
        options.onId?.(requestId)
      } catch (error) {
        this.#settle(requestId)?.reject(asMvmError(error))
      }
    })
    if (message.name !== answer) {
      throw new MvmError("protocol", `${name} was answered by ${message.name}, not ${answer}`)
    }
    return message as NamedMessage<A>
  }

  /** Answer request `requestId` with a failure. */
  fail(requestId: number, error: MvmError): void {
    this.send(
      "FAILED",
      { code: error.code, message: clip(error.message, 1000), hint: error.hint && clip(error.hint, 500) },
      requestId,
    )
  }

  /** End every waiting request with `error`, and forget the keys. */
  reset(error: MvmError): void {
    this.#current = undefined
    this.#pending = undefined
    for (const requestId of [...this.#waiting.keys()]) this.#settle(requestId)?.reject(error)
  }

  #dispatch(payload: Uint8Array, authenticated: boolean): void {
    const from = this.#side === "guest" ? "mvm" : "guest"
    if (!authenticated) {
      const message = decodeMessage(MESSAGES, payload, from)
      if (!UNAUTHENTICATED.has(message.name)) {
        throw new MvmError("frame", `${message.name} outside the authenticated stream`)
      }
      this.#handlers.onOpenMessage(message)
      return
    }
    const opened = this.#open(payload)
    const message = this.#repeated.decoded(opened, () => decodeMessage(MESSAGES, opened, from))
    if (UNAUTHENTICATED.has(message.name)) throw new MvmError("frame", `${message.name} inside the stream`)
    const waiting = message.requestId === 0 ? undefined : this.#answered(message)
    if (!waiting) {
      this.#handlers.onMessage(message)
    } else if (message.name === "FAILED") {
      waiting.reject(peerError(message.fields))
    } else {
      try {
        waiting.onAnswer(message)
        waiting.resolve(message)
      } catch (error) {
        waiting.reject(asMvmError(error))
      }
    }
  }

  /** Trust: tries the current keys, then the pending ones; the first success of those makes them current. */
  #open(payload: Uint8Array): Uint8Array {
    if (this.#current) {
      try {
        return this.#current.authenticator.open(payload)
      } catch (error) {
        if (!this.#pending) this.#handlers.onDesync?.()
        if (!this.#pending) throw error
      }
    }
    if (!this.#pending) throw new MvmError("frame", "the link is not authenticated")
    try {
      const message = this.#pending.authenticator.open(payload)
      this.#promote()
      return message
    } catch (error) {
      this.#handlers.onDesync?.()
      throw error
    }
  }

  #promote(): void {
    const pending = this.#pending
    if (!pending) return
    this.#pending = undefined
    this.#current = pending
    const gone = new MvmError("unreachable", "the link began a new epoch")
    for (const requestId of [...this.#waiting.keys()]) this.#settle(requestId)?.reject(gone)
    this.#handlers.onEpoch(pending.epoch)
  }

  /** Both ends number their own requests, so the name says whether an id is one of ours. */
  #answered(message: LinkMessage): Waiting | undefined {
    return ANSWERS.has(message.name) ? this.#settle(message.requestId) : undefined
  }

  #settle(requestId: number): Waiting | undefined {
    const waiting = this.#waiting.get(requestId)
    if (!waiting) return undefined
    this.#waiting.delete(requestId)
    clearTimeout(waiting.timer)
    return waiting
  }
}

/** Names that answer a request; any other message with an id is a request of the peer's own. */
const ANSWERS = new Set<MessageName>([
  "SETTINGS",
  "FAILED",
  "DONE",
  "ALLOCATED",
  "EVIDENCE",
  "ACCEPT",
  "OPENED",
  "MEASURED",
  "EVENT_LOG",
  "OPINION",
  "DEPOSITING",
  "COLLECTED",
  "DEPOSIT_BYTES",
  "DEPOSITS",
  "PEER_LIST",
])

/** Trust: `fields` is what the peer says went wrong; an unknown code becomes `aborted`. */
function peerError(fields: Fields<"FAILED">): MvmError {
  return errorFromPeer(fields.code, fields.message, fields.hint)
}

export function errorFromPeer(code: string, message: string, hint?: string): MvmError {
  return new MvmError(isErrorCode(code) ? code : "aborted", message, { hint })
}

/** `text` cut to at most `maxBytes` bytes of UTF-8. */
export function clip(text: string, maxBytes: number): string {
  const bytes = utf8(text)
  if (bytes.length <= maxBytes) return text
  return new TextDecoder().decode(bytes.subarray(0, maxBytes - 6)).replace(/\ufffd$/, "") + "..."
}
