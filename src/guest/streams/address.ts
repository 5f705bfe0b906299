/**
 * @module guest/streams/address
 *
 * Where a socket is: a TCP host and port, or the path of a unix socket; and the two things one does with it.
 */

import type { Socket } from "bun"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { placeSocket, removeSocket } from "../../platform/socket-file.ts"
import { SOCKET_EVENTS, SocketDuplex } from "./socket-duplex.ts"

const MAX_UNIX_PATH_BYTES = 107
const MAX_HOST_LENGTH = 253

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

/** @throws MvmError `unreachable`. */
export async function connectTo(address: Address): Promise<SocketDuplex> {
  const { promise, resolve, reject } = Promise.withResolvers<SocketDuplex>()
  const refused = (error: Error): void =>
    reject(
      new MvmError(
        "unreachable",
        `cannot connect to ${addressText(address)}: ${errnoOf(error) ?? "failed"}`,
        {
          cause: error,
        },
      ),
    )
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
  const connecting =
    address.kind === "unix"
      ? Bun.connect<SocketDuplex>({ ...options, unix: address.path })
      : Bun.connect<SocketDuplex>({ ...options, hostname: address.host, port: address.port })
  connecting.catch(refused)
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
  if (address.kind === "unix") await removeStale(address.path)
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
async function removeStale(path: string): Promise<void> {
  let there: SocketDuplex
  try {
    there = await connectTo({ kind: "unix", path })
  } catch (error) {
    // A file that is no socket refuses connections, too.
    if (errnoOf((error as MvmError).cause) === "ECONNREFUSED") removeSocket(path)
    return
  }
  there.reset(new MvmError("aborted", "only looked"))
  throw new MvmError("exists", `cannot listen at ${path}: it is in use`)
}
