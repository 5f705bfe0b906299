/**
 * @module platform/json-rpc
 *
 * Requests and answers as JSON lines on a unix socket: the operator's commands to the daemon. Either end may be
 * trusted with the other's words (the socket is the daemon's user's alone), so there is no schema layer; sizes
 * are bounded all the same.
 *
 * A request is `{id, method, params}`; an answer `{id, result}` or `{id, error: {code, message, hint}}`; before
 * its answer a request may get any number of `{id, progress}`.
 */

import { MvmError, asMvmError, isErrorCode } from "../lib/errors.ts"
import { peerCredentials } from "./posix.ts"
import { connectUnix, listenUnix, type ByteSocket, type UnixListener } from "./unix-socket.ts"

const MAX_LINE_BYTES = 64 * 1024 * 1024
/** A handler that tells progress waits while this much is unread. */
const PROGRESS_BACKLOG_BYTES = 1024 * 1024

export type Params = Readonly<Record<string, unknown>>

export interface RpcCall {
  /** Resolves when the caller has read enough of it for more, and at once when it is gone. */
  progress(value: unknown): Promise<void>
  /** Fires when the caller hangs up. */
  readonly gone: AbortSignal
}

/** Handles one request. */
export type Handler = (params: Params, call: RpcCall) => Promise<unknown> | unknown

/** Serve `handlers` at `path`, mode 0600, for root and this process's own user. */
export function serveRpc(path: string, handlers: ReadonlyMap<string, Handler>): UnixListener {
  return listenUnix(
    path,
    0o600,
    (socket) => {
      if (!isOwn(socket)) return socket.close()
      const gone = new AbortController()
      const progress = new Progress(socket)
      const lines = new LineReader((line) => void answer(progress, handlers, line, gone.signal))
      socket.handlers = {
        onData: (chunk) => {
          if (!lines.push(chunk)) socket.close()
        },
        onDrain: () => progress.wake(),
        onClose: () => {
          gone.abort()
          progress.wake()
        },
      }
    },
    MAX_LINE_BYTES,
  )
}

function isOwn(socket: ByteSocket): boolean {
  try {
    const { uid } = peerCredentials(socket.fd)
    return uid === 0 || uid === process.geteuid?.()
  } catch {
    return false
  }
}

/** A socket that tells when it wants more. */
class Progress {
  readonly socket: ByteSocket
  #waiting: (() => void)[] = []

  constructor(socket: ByteSocket) {
    this.socket = socket
  }

  async send(value: unknown): Promise<void> {
    sendLine(this.socket, value)
    while (!this.socket.closed && this.socket.backlogBytes > PROGRESS_BACKLOG_BYTES) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }

  wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

async function answer(
  caller: Progress,
  handlers: ReadonlyMap<string, Handler>,
  line: string,
  gone: AbortSignal,
): Promise<void> {
  let id: unknown = null
  try {
    const request = JSON.parse(line) as { id?: unknown; method?: unknown; params?: unknown }
    id = request.id
    const handler = handlers.get(String(request.method))
    if (!handler) throw new MvmError("usage", `this mvm serve does not know ${String(request.method)}`)
    const params = (request.params ?? {}) as Params
    const result = await handler(params, { progress: (progress) => caller.send({ id, progress }), gone })
    sendLine(caller.socket, { id, result: result ?? null })
  } catch (error) {
    const { code, message, hint } = asMvmError(error)
    sendLine(caller.socket, { id, error: { code, message, hint } })
  }
}

/** A connection to a daemon. */
export class RpcClient {
  readonly #socket: ByteSocket
  readonly #pending = new Map<
    number,
    { resolve(value: unknown): void; reject(error: MvmError): void; progress: (value: unknown) => void }
  >()
  #nextId = 1

  private constructor(socket: ByteSocket) {
    this.#socket = socket
    const lines = new LineReader((line) => this.#handle(line))
    socket.handlers = {
      onData: (chunk) => {
        if (!lines.push(chunk)) socket.close()
      },
      onClose: () => {
        const error = new MvmError("no_mvm", "the MVM went away")
        for (const { reject } of this.#pending.values()) reject(error)
        this.#pending.clear()
      },
    }
  }

  /** @throws MvmError `no_mvm` when nothing listens at `path`. */
  static async connect(path: string): Promise<RpcClient> {
    try {
      return new RpcClient(await connectUnix(path, undefined, MAX_LINE_BYTES))
    } catch (error) {
      throw new MvmError("no_mvm", `no MVM answers at ${path}`, {
        cause: error,
        hint: "start it with mvm serve, or name its directory with --state",
      })
    }
  }

  /** @throws MvmError as the daemon said. */
  call<T>(method: string, params: Params = {}, progress: (value: unknown) => void = () => {}): Promise<T> {
    const id = this.#nextId++
    if (this.#socket.closed) return Promise.reject(new MvmError("no_mvm", "the MVM went away"))
    return new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject, progress })
      sendLine(this.#socket, { id, method, params })
    })
  }

  close(): void {
    this.#socket.close()
  }

  #handle(line: string): void {
    const message = JSON.parse(line) as {
      id: number
      result?: unknown
      progress?: unknown
      error?: { code: string; message: string; hint?: string }
    }
    const pending = this.#pending.get(message.id)
    if (!pending) return
    if (message.progress !== undefined) {
      try {
        return pending.progress(message.progress)
      } catch (error) {
        // What the caller does with it failed (its own output was closed): so did the call.
        this.#pending.delete(message.id)
        return pending.reject(asMvmError(error))
      }
    }
    this.#pending.delete(message.id)
    if (!message.error) return pending.resolve(message.result)
    const { code, message: text, hint } = message.error
    pending.reject(new MvmError(isErrorCode(code) ? code : "internal", text, { hint }))
  }
}

function sendLine(socket: ByteSocket, value: unknown): void {
  socket.write(Buffer.from(`${JSON.stringify(value)}\n`))
}

/** Takes a byte stream apart into lines. */
export class LineReader {
  readonly #onLine: (line: string) => void
  #parts: Buffer[] = []
  #bytes = 0

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine
  }

  /** False when a line grew over the bound. */
  push(chunk: Uint8Array): boolean {
    let rest = Buffer.from(chunk)
    for (;;) {
      const end = rest.indexOf(10)
      if (end < 0) break
      const line = Buffer.concat([...this.#parts, rest.subarray(0, end)]).toString("utf8")
      this.#parts = []
      this.#bytes = 0
      rest = rest.subarray(end + 1)
      if (line.trim() !== "") this.#onLine(line)
    }
    this.#bytes += rest.length
    if (rest.length > 0) this.#parts.push(rest)
    return this.#bytes <= MAX_LINE_BYTES
  }
}
