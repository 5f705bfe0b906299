/**
 * @module guest/streams/socket-duplex
 *
 * A TCP or unix socket as a stream of bytes, with the flow control that the runtime leaves to its user: it is read
 * while somebody reads, and written as far as it takes.
 */

import type { Socket } from "bun"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import type { JoinableDuplex } from "./join.ts"

/** What may have come and not been read before the socket is left to fill up. */
const HELD_BYTES = 512 * 1024

export class SocketDuplex implements JoinableDuplex {
  readonly #socket: Socket<SocketDuplex>
  #held: Uint8Array[] = []
  #heldBytes = 0
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
  }

  async read(): Promise<Uint8Array | null> {
    if (this.#readFailure) throw this.#readFailure
    const bytes = this.#held.shift()
    if (bytes) {
      this.#heldBytes -= bytes.length
      if (this.#paused && this.#heldBytes === 0) this.#resume()
      return bytes
    }
    if (this.#ended) return null
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
    const reader = this.#reader
    if (reader) {
      this.#reader = undefined
      return reader.resolve(chunk)
    }
    this.#held.push(chunk)
    this.#heldBytes += chunk.length
    if (this.#heldBytes < HELD_BYTES || this.#paused) return
    this.#paused = true
    this.#socket.pause()
  }

  /** The runtime says that the other side writes no more. */
  peerEnded(): void {
    this.#ended = true
    if (this.#held.length === 0) this.#reader?.resolve(null)
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

  #resume(): void {
    this.#paused = false
    this.#socket.resume()
  }

  #readFails(error: MvmError): void {
    this.#readFailure ??= error
    this.#held = []
    this.#heldBytes = 0
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
