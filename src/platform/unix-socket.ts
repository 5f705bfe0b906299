/**
 * @module platform/unix-socket
 *
 * Unix stream sockets with the flow control the runtime leaves to its user: short writes are kept in order and
 * drained, and a peer that does not read is cut off at a bound instead of filling memory.
 */

import type { Socket } from "bun"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { placeSocket, removeSocket } from "./socket-file.ts"

/** What a connection's owner wants to hear. */
export interface SocketHandlers {
  onData(chunk: Uint8Array): void
  onClose(): void
  onDrain?(): void
}

/** Default bound on bytes waiting for a peer that does not read. */
export const MAX_BACKLOG_BYTES = 4 * 1024 * 1024

/** A connected unix stream. Bytes written are delivered in order or the stream is closed. */
export class ByteSocket {
  handlers: SocketHandlers = { onData: () => {}, onClose: () => {} }
  #socket: Socket<ByteSocket>
  #queue: Uint8Array[] = []
  #backlogBytes = 0
  #closed = false
  readonly #maxBacklogBytes: number

  constructor(socket: Socket<ByteSocket>, maxBacklogBytes: number) {
    this.#socket = socket
    this.#maxBacklogBytes = maxBacklogBytes
  }

  get closed(): boolean {
    return this.#closed
  }

  get backlogBytes(): number {
    return this.#backlogBytes
  }

  /** The file descriptor, for peer credentials and poll. */
  get fd(): number {
    return (this.#socket as unknown as { fd: number }).fd
  }

  /** Queue `bytes`; over the backlog bound the connection is closed. Nothing happens on a closed one. */
  write(bytes: Uint8Array): void {
    if (this.#closed) return
    if (this.#queue.length === 0) {
      const written = this.#socket.write(bytes)
      if (written < 0) return this.close()
      if (written === bytes.length) return
      bytes = bytes.slice(written)
    } else {
      bytes = bytes.slice()
    }
    this.#queue.push(bytes)
    this.#backlogBytes += bytes.length
    if (this.#backlogBytes > this.#maxBacklogBytes) this.close()
  }

  /** Stops reading, so that the peer's writes wait with it, or goes on. Nothing happens on a closed one. */
  pause(isPaused: boolean): void {
    if (this.#closed) return
    if (isPaused) this.#socket.pause()
    else this.#socket.resume()
  }

  close(): void {
    if (this.#closed) return
    this.#socket.end()
    this.#socket.terminate()
    this.ended()
  }

  /** Write what is queued, then close. */
  finish(): void {
    if (this.#queue.length === 0) return this.close()
    this.#finishing = true
  }
  #finishing = false

  /** The runtime says the socket takes more. */
  drained(): void {
    while (this.#queue.length > 0) {
      const bytes = this.#queue[0] as Uint8Array
      const written = this.#socket.write(bytes)
      if (written < 0) return this.close()
      this.#backlogBytes -= written
      if (written < bytes.length) {
        this.#queue[0] = bytes.subarray(written)
        return
      }
      this.#queue.shift()
    }
    if (this.#finishing) this.close()
    else this.handlers.onDrain?.()
  }

  /** The runtime says the socket is gone. */
  ended(): void {
    if (this.#closed) return
    this.#closed = true
    this.#queue = []
    this.#backlogBytes = 0
    this.handlers.onClose()
  }
}

/**
 * Connect to the unix socket at `path`.
 *
 * @throws MvmError `unreachable` when nothing listens there, `io` otherwise.
 */
export async function connectUnix(
  path: string,
  handlers?: SocketHandlers,
  maxBacklogBytes = MAX_BACKLOG_BYTES,
): Promise<ByteSocket> {
  let made: ByteSocket | undefined
  try {
    await Bun.connect<ByteSocket>({
      unix: path,
      socket: {
        open(socket) {
          made = new ByteSocket(socket, maxBacklogBytes)
          if (handlers) made.handlers = handlers
          socket.data = made
        },
        ...callbacks,
      },
    })
  } catch (error) {
    const errno = errnoOf(error)
    const absent = errno === "ENOENT" || errno === "ECONNREFUSED"
    throw new MvmError(absent ? "unreachable" : "io", `cannot connect to ${path}: ${errno ?? "failed"}`, {
      cause: error,
    })
  }
  if (!made) throw new MvmError("io", `cannot connect to ${path}`)
  return made
}

export interface UnixListener {
  close(): void
}

/**
 * Listen at `path` with file mode `mode`; a socket that is there is replaced.
 *
 * @throws MvmError `exists` when something else is there, `io` when the path cannot be bound.
 */
export function listenUnix(
  path: string,
  mode: number,
  onConnection: (socket: ByteSocket) => void,
  maxBacklogBytes = MAX_BACKLOG_BYTES,
): UnixListener {
  if (Buffer.byteLength(path) > 107) {
    throw new MvmError("io", `socket path is longer than 107 bytes: ${path}`, {
      hint: "use a shorter --state directory",
    })
  }
  removeSocket(path)
  try {
    const { listener, remove } = placeSocket(path, mode, (unix) =>
      Bun.listen<ByteSocket>({
        unix,
        socket: {
          open(socket) {
            const made = new ByteSocket(socket, maxBacklogBytes)
            socket.data = made
            onConnection(made)
          },
          ...callbacks,
        },
      }),
    )
    return {
      close: () => {
        remove()
        listener.stop(true)
      },
    }
  } catch (error) {
    throw new MvmError("io", `cannot listen at ${path}: ${errnoOf(error) ?? (error as Error).message}`, {
      cause: error,
    })
  }
}

const callbacks = {
  data: (socket: Socket<ByteSocket>, chunk: Uint8Array) => socket.data.handlers.onData(chunk),
  drain: (socket: Socket<ByteSocket>) => socket.data.drained(),
  close: (socket: Socket<ByteSocket>) => socket.data?.ended(),
  error: (socket: Socket<ByteSocket>, error: Error) => {
    socket.data?.close()
    // The runtime brings here what a handler threw, too: that must not go unseen.
    if (errnoOf(error) === undefined) reportError(error)
  },
  end: (socket: Socket<ByteSocket>) => socket.data?.close(),
}
