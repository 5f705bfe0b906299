/**
 * @module guest/streams/socket-duplex
 *
 * A TCP or unix socket as a stream of bytes, with the flow control that the runtime leaves to its user. The runtime
 * tells that something came, and brings the first of it; the rest is read here, into blocks that are used again,
 * and while that goes on the runtime does not look.
 *
 *     WATCHED --something came: pause--> PAUSED --nothing there: resume--> WATCHED
 */

import type { Socket } from "bun"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { NOTHING_YET, readSocket } from "../../platform/socket-read.ts"
import { readBlock } from "./block-pool.ts"
import type { JoinableDuplex } from "./join.ts"

export class SocketDuplex implements JoinableDuplex {
  readonly #socket: Socket<SocketDuplex>
  readonly #fd: number
  #held: Uint8Array | undefined
  #paused = false
  #ended = false
  #discarding = false
  #wroteEnd = false
  #readFailure: MvmError | undefined
  #writeFailure: MvmError | undefined
  #reader: PromiseWithResolvers<Uint8Array | null> | undefined
  #drained: PromiseWithResolvers<void> | undefined

  constructor(socket: Socket<SocketDuplex>) {
    this.#socket = socket
    this.#fd = (socket as unknown as { fd: number }).fd
  }

  async read(): Promise<Uint8Array | null> {
    if (this.#readFailure) throw this.#readFailure
    const held = this.#held
    if (held) {
      this.#held = undefined
      return held
    }
    if (this.#ended) return null
    if (this.#paused) {
      const bytes = this.#readNow()
      if (bytes !== undefined) return bytes
      this.#resume()
    }
    this.#reader = Promise.withResolvers()
    return this.#reader.promise
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      if (this.#writeFailure) throw this.#writeFailure
      const written = this.#socket.write(at === 0 ? bytes : bytes.subarray(at))
      if (written < 0) throw unwritable()
      at += written
      if (at === bytes.length) return
      this.#drained = Promise.withResolvers()
      await this.#drained.promise
    }
  }

  async end(): Promise<void> {
    if (this.#wroteEnd || this.#writeFailure) return
    this.#wroteEnd = true
    if (this.#discarding) this.#socket.end()
    else this.#socket.shutdown()
  }

  stop(error: MvmError): void {
    if (this.#ended || this.#discarding) return
    this.#discarding = true
    this.#readFails(error)
    // What still comes must not block the program at the other side.
    if (this.#wroteEnd) this.#socket.end()
    else if (this.#paused) this.#resume()
  }

  reset(error: MvmError): void {
    if (this.#writeFailure || (this.#ended && this.#wroteEnd)) return
    this.#readFails(error)
    this.#writeFails(error)
    this.#socket.terminate()
  }

  /** The runtime brings what came. */
  received(chunk: Uint8Array): void {
    if (this.#discarding || this.#readFailure) return
    if (!this.#paused) {
      this.#paused = true
      this.#socket.pause()
    }
    const reader = this.#reader
    this.#reader = undefined
    if (reader) reader.resolve(chunk)
    else this.#held = this.#held ? Buffer.concat([this.#held, chunk]) : chunk
  }

  /** The runtime says that the other side writes no more. */
  peerEnded(): void {
    this.#ended = true
    this.#reader?.resolve(null)
    this.#reader = undefined
  }

  /** The runtime says that the socket takes more. */
  drained(): void {
    this.#drained?.resolve()
    this.#drained = undefined
  }

  /** The runtime says that the socket is gone. */
  closed(error: unknown): void {
    if (error !== undefined && !this.#ended) {
      this.#readFails(new MvmError("aborted", `the connection broke off: ${errnoOf(error) ?? "failed"}`))
    }
    if (!this.#ended) this.peerEnded()
    this.#writeFails(unwritable())
  }

  /** What has come, null at the end, undefined when nothing has. */
  #readNow(): Uint8Array | null | undefined {
    try {
      const bytes = readBlock((block) => readSocket(this.#fd, block))
      if (typeof bytes !== "number") return bytes
      if (bytes === NOTHING_YET) return undefined
      this.#ended = true
      // The runtime sees the end too, and lets go of the socket after both.
      this.#resume()
      return null
    } catch (error) {
      const failure = new MvmError("aborted", `the connection broke off: ${errnoOf(error) ?? "failed"}`)
      this.reset(failure)
      throw failure
    }
  }

  #resume(): void {
    this.#paused = false
    this.#socket.resume()
  }

  #readFails(error: MvmError): void {
    this.#readFailure ??= error
    this.#held = undefined
    this.#reader?.reject(this.#readFailure)
    this.#reader = undefined
  }

  #writeFails(error: MvmError): void {
    this.#writeFailure ??= error
    this.#drained?.reject(this.#writeFailure)
    this.#drained = undefined
  }
}

/** What the runtime calls, for `Bun.connect` and `Bun.listen` with `allowHalfOpen`. */
export const SOCKET_EVENTS = {
  data: (socket: Socket<SocketDuplex>, chunk: Uint8Array) => socket.data?.received(chunk),
  end: (socket: Socket<SocketDuplex>) => socket.data?.peerEnded(),
  drain: (socket: Socket<SocketDuplex>) => socket.data?.drained(),
  close: (socket: Socket<SocketDuplex>, error?: Error) => socket.data?.closed(error),
  error: (socket: Socket<SocketDuplex>, error: Error) => socket.data?.closed(error),
}

function unwritable(): MvmError {
  return new MvmError("sink", "the connection takes no more")
}
