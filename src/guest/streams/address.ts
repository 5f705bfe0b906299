/**
 * @module guest/streams/address
 *
 * Where a socket is: a TCP host and port, or the path of a unix socket; and the two things one does with it.
 */

import type { Socket } from "bun"
import { closeSync } from "node:fs"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { pause } from "../../lib/pause.ts"
import { placeSocket, removeSocket } from "../../platform/socket-file.ts"
import { connectNow } from "../../platform/unix-address.ts"
import { SOCKET_EVENTS, SocketDuplex } from "./socket-duplex.ts"

const MAX_UNIX_PATH_BYTES = 107
const MAX_HOST_LENGTH = 253

/** How long a unix socket whose queue is full is tried again, and after what pauses. */
const QUEUE_FULL_MS = 10_000
const FIRST_PAUSE_MS = 5
const LONGEST_PAUSE_MS = 200

export type Address =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string }

/** "127.0.0.1:5432", "[::1]:5432", "localhost:0". @throws MvmError `usage` that names `what`. */
export function parseTcp(text: string, what: string): Address {
  const [, v6, name, port] = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})$/.exec(text) ?? []
  const host = v6 ?? name
  if (host === undefined || host.length > MAX_HOST_LENGTH || Number(port) > 65535) {
    throw new MvmError("usage", `${what}: ${text} is not HOST:PORT`, { hint: "127.0.0.1:5432 or [::1]:5432" })
  }
  return { kind: "tcp", host, port: Number(port) }
}

/** @throws MvmError `usage` that names `what`. */
export function parseUnix(path: string, what: string): Address {
  if (path === "" || path.includes("\0") || Buffer.byteLength(path) > MAX_UNIX_PATH_BYTES) {
    throw new MvmError("usage", `${what}: a path of 1 to ${MAX_UNIX_PATH_BYTES} bytes is expected`)
  }
  return { kind: "unix", path }
}

/** A word with a slash, or "unix:PATH", is a path; all else is HOST:PORT. @throws MvmError `usage`. */
export function parseAddress(text: string, what: string): Address {
  if (text.startsWith("unix:")) return parseUnix(text.slice("unix:".length), what)
  return text.includes("/") ? parseUnix(text, what) : parseTcp(text, what)
}

/** As {@link parseAddress} reads it. */
export function addressText(address: Address): string {
  if (address.kind === "unix") return address.path
  return `${address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`
}

/**
 * A connection. A unix socket at which too many wait to be accepted is tried again for a while, as it would be waited
 * for by others: the queues of many programs are short.
 *
 * @param broken nobody wants the connection any more
 * @throws MvmError `unreachable`.
 */
export async function connectTo(address: Address, broken: AbortSignal): Promise<SocketDuplex> {
  if (address.kind === "tcp") return connect(address, { hostname: address.host, port: address.port })
  const deadline = performance.now() + QUEUE_FULL_MS
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    try {
      return await connect(address, { fd: connectNow(address.path) })
    } catch (error) {
      if (error instanceof MvmError) throw error
      const mayWait = errnoOf(error) === "EAGAIN" && performance.now() < deadline && !broken.aborted
      if (!mayWait) throw unreachable(address, error)
    }
    await pause(pauseMs, broken)
  }
}

function unreachable(address: Address, cause: unknown): MvmError {
  const why = errnoOf(cause) ?? "failed"
  return new MvmError("unreachable", `cannot connect to ${addressText(address)}: ${why}`, { cause })
}

function connect(
  address: Address,
  where: { hostname: string; port: number } | { fd: number },
): Promise<SocketDuplex> {
  const { promise, resolve, reject } = Promise.withResolvers<SocketDuplex>()
  const refused = (error: Error): void => reject(unreachable(address, error))
  const options = {
    allowHalfOpen: true,
    data: undefined as unknown as SocketDuplex,
    socket: {
      ...SOCKET_EVENTS,
      open: (socket: Socket<SocketDuplex>) => {
        socket.data = new SocketDuplex(socket)
        resolve(socket.data)
      },
      connectError: (_socket: Socket<SocketDuplex>, error: Error) => refused(error),
    },
  }
  // The types know of no descriptor here; the runtime does.
  Bun.connect<SocketDuplex>({ ...options, ...(where as { hostname: string; port: number }) }).catch(refused)
  return promise
}

export interface Listening {
  /** With the port that port 0 became */
  readonly address: Address
  close(): void
}

/**
 * Listens until {@link Listening.close}. A unix socket that nobody answers at is replaced.
 *
 * @param mode of a unix socket's file; by default it is its owner's alone
 * @throws MvmError `exists` when somebody else listens there or a file is no socket, `io` otherwise.
 */
export async function listenAt(
  address: Address,
  onConnection: (connection: SocketDuplex) => void,
  mode = 0o600,
): Promise<Listening> {
  if (address.kind === "unix") removeStale(address.path)
  const options = {
    allowHalfOpen: true,
    data: undefined as unknown as SocketDuplex,
    socket: {
      ...SOCKET_EVENTS,
      open: (socket: Socket<SocketDuplex>) => {
        socket.data = new SocketDuplex(socket)
        onConnection(socket.data)
      },
    },
  }
  try {
    if (address.kind === "unix") {
      const { listener, remove } = placeSocket(address.path, mode, (unix) =>
        Bun.listen<SocketDuplex>({ ...options, unix }),
      )
      return {
        address,
        close: () => {
          remove()
          listener.stop()
        },
      }
    }
    const listener = Bun.listen<SocketDuplex>({ ...options, hostname: address.host, port: address.port })
    return { address: { ...address, port: listener.port }, close: () => listener.stop() }
  } catch (cause) {
    const errno = errnoOf(cause)
    const what = `cannot listen at ${addressText(address)}`
    if (errno === "EADDRINUSE" || errno === "EEXIST")
      throw new MvmError("exists", `${what}: it is in use`, { cause })
    throw new MvmError("io", `${what}: ${errno ?? (cause as Error).message}`, { cause })
  }
}

/**
 * Removes a socket that outlived its listener.
 *
 * @throws MvmError `exists` when one listens, or what is there is no socket.
 */
function removeStale(path: string): void {
  try {
    closeSync(connectNow(path))
  } catch (error) {
    // A file that is no socket refuses connections, too.
    if (errnoOf(error) === "ECONNREFUSED") return removeSocket(path)
    // Who listens is busy.
    if (errnoOf(error) !== "EAGAIN") return
  }
  throw new MvmError("exists", `cannot listen at ${path}: it is in use`)
}
