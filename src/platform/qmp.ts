/**
 * @module platform/qmp
 *
 * A client of QEMU's monitor: one JSON object a line each way, commands matched by id, events passed on.
 *
 * @spec QEMU Machine Protocol Specification
 */

import { MvmError, asMvmError } from "../lib/errors.ts"
import type { Monitor, QmpEvent } from "./monitor.ts"
import { connectUnix, type ByteSocket } from "./unix-socket.ts"

const DEFAULT_TIMEOUT_MS = 10_000
/** A QEMU that has just begun listens soon; one that does not is not asked without pause. */
const CONNECT_POLL_MS = 20
const MAX_POLL_MS = 250

/** The longest line taken from QEMU. */
const MAX_LINE_BYTES = 8 * 1024 * 1024

interface Pending {
  command: string
  resolve(value: unknown): void
  reject(error: MvmError): void
  timer: ReturnType<typeof setTimeout>
}

/** A connected monitor in command mode. */
export class Qmp implements Monitor {
  #socket: ByteSocket
  #pending = new Map<number, Pending>()
  #nextId = 1
  #handlers = new Set<(event: QmpEvent) => void>()
  #received: Buffer[] = []
  #receivedBytes = 0
  #greeted = Promise.withResolvers<void>()
  #closed = Promise.withResolvers<void>()
  #failure: MvmError | undefined

  private constructor(socket: ByteSocket) {
    this.#socket = socket
    this.#greeted.promise.catch(() => {})
    socket.handlers = {
      onData: (chunk) => this.#receive(chunk),
      onClose: () => this.#fail(new MvmError("qemu", "the monitor closed the connection")),
    }
  }

  /**
   * Connects to the monitor's unix socket and enters command mode; retries until something listens there, or `ended`
   * fires.
   *
   * @throws MvmError `unreachable` when nothing listens within `timeoutMs`, `timeout` when it does not answer, `qemu`
   *   when it closes.
   */
  static async connect(
    path: string,
    { timeoutMs = DEFAULT_TIMEOUT_MS, ended }: { timeoutMs?: number; ended?: AbortSignal } = {},
  ): Promise<Qmp> {
    const deadline = performance.now() + timeoutMs
    return Qmp.over(await connectUntil(path, deadline, ended), Math.max(1, deadline - performance.now()))
  }

  /**
   * The monitor at the other end of a connection that was made already.
   *
   * @throws MvmError `timeout` when it does not greet, `qemu` when it closes.
   */
  static async over(socket: ByteSocket, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<Qmp> {
    const deadline = performance.now() + timeoutMs
    const qmp = new Qmp(socket)
    const timer = setTimeout(
      () =>
        qmp.#fail(new MvmError("timeout", `the monitor did not greet within ${Math.round(timeoutMs)} ms`)),
      timeoutMs,
    )
    try {
      await qmp.#greeted.promise
      await qmp.execute("qmp_capabilities", undefined, Math.max(1, deadline - performance.now()))
      return qmp
    } catch (error) {
      qmp.close()
      throw asMvmError(error, "qemu")
    } finally {
      clearTimeout(timer)
    }
  }

  /** Resolves when the connection is gone, whoever ended it. */
  get closed(): Promise<void> {
    return this.#closed.promise
  }

  /**
   * Runs one command and returns its `return` value.
   *
   * @throws MvmError `qemu` with QEMU's own class and description, `timeout` after `timeoutMs`.
   */
  execute(command: string, args?: Record<string, unknown>, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<unknown> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    const id = this.#nextId++
    const answer = Promise.withResolvers<unknown>()
    const timer = setTimeout(() => {
      this.#pending.delete(id)
      answer.reject(new MvmError("timeout", `${command}: no answer from qemu within ${timeoutMs} ms`))
    }, timeoutMs)
    this.#pending.set(id, { command, resolve: answer.resolve, reject: answer.reject, timer })
    this.#socket.write(Buffer.from(`${JSON.stringify({ execute: command, arguments: args, id })}\n`))
    return answer.promise
  }

  /** Calls `handler` for each event from now on; returns a function that stops that. */
  onEvent(handler: (event: QmpEvent) => void): () => void {
    this.#handlers.add(handler)
    return () => this.#handlers.delete(handler)
  }

  close(): void {
    this.#fail(new MvmError("qemu", "the monitor connection was closed"))
    this.#socket.close()
  }

  #receive(chunk: Uint8Array): void {
    let rest = Buffer.from(chunk)
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      const line = Buffer.concat([...this.#received, rest.subarray(0, end)])
      this.#received = []
      this.#receivedBytes = 0
      rest = rest.subarray(end + 1)
      this.#line(line)
    }
    if (rest.length === 0) return
    this.#received.push(rest)
    this.#receivedBytes += rest.length
    if (this.#receivedBytes > MAX_LINE_BYTES) this.#abort("a line from the monitor is too long")
  }

  #line(line: Buffer): void {
    if (line.length === 0 || (line.length === 1 && line[0] === 0x0d)) return
    let message: unknown
    try {
      message = JSON.parse(line.toString("utf8"))
    } catch {
      return this.#abort("the monitor sent a line that is not JSON")
    }
    if (!isObject(message)) return this.#abort("the monitor sent a line that is not an object")
    if ("QMP" in message) this.#greeted.resolve()
    else if (typeof message["event"] === "string") this.#event(message["event"], message["data"])
    else if (typeof message["id"] === "number") this.#answer(message["id"], message)
  }

  #event(name: string, data: unknown): void {
    for (const handler of [...this.#handlers]) handler({ name, data: isObject(data) ? data : {} })
  }

  #answer(id: number, message: Record<string, unknown>): void {
    const pending = this.#pending.get(id)
    if (pending === undefined) return
    this.#pending.delete(id)
    clearTimeout(pending.timer)
    const error = message["error"]
    if (!isObject(error)) return pending.resolve(message["return"])
    const said = oneLine(`${String(error["class"])}: ${String(error["desc"])}`)
    pending.reject(new MvmError("qemu", `${pending.command}: ${said}`))
  }

  #abort(problem: string): void {
    this.#fail(new MvmError("qemu", problem))
    this.#socket.close()
  }

  #fail(error: MvmError): void {
    if (this.#failure !== undefined) return
    this.#failure = error
    this.#greeted.reject(error)
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.timer)
      pending.reject(new MvmError(error.code, `${pending.command}: ${error.message}`))
    }
    this.#pending.clear()
    this.#closed.resolve()
  }
}

async function connectUntil(path: string, deadline: number, ended?: AbortSignal): Promise<ByteSocket> {
  for (let pollMs = CONNECT_POLL_MS; ; pollMs = Math.min(pollMs * 1.5, MAX_POLL_MS)) {
    try {
      return await connectUnix(path)
    } catch (error) {
      if (ended?.aborted || performance.now() + pollMs > deadline) throw error
      await Bun.sleep(pollMs)
    }
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim()
}
