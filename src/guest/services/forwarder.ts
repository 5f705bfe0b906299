/**
 * @module guest/services/forwarder
 *
 * A listening socket whose connections are streams of one attested session. A connection costs no quote; the session
 * ends with the policy that allowed it, and every connection with it.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { listenAt, type Address, type Listening } from "../streams/address.ts"
import { join } from "../streams/join.ts"
import type { SocketDuplex } from "../streams/socket-duplex.ts"
import type { StandingSession } from "./standing-session.ts"

/** How long a connection waits for a session that is made again. */
const SESSION_MS = 10_000

export interface ForwarderOptions {
  /** Connections that come before it wait for it */
  readonly session: Promise<StandingSession>
  /** Ends when there was no connection for so long; undefined: never */
  readonly idleMs: number | undefined
  onIdle(): void
  /** A connection could not be made, or broke off. */
  onFailed(error: MvmError): void
}

export class Forwarder {
  readonly #options: ForwarderOptions
  readonly #connections = new Set<SocketDuplex>()
  #listening: Listening | undefined
  #idleTimer: ReturnType<typeof setTimeout> | undefined
  #served = 0

  private constructor(options: ForwarderOptions) {
    this.#options = options
    this.#watchIdle()
  }

  /** @param mode of a unix socket's file @throws MvmError `exists`, `io`. */
  static async start(address: Address, options: ForwarderOptions, mode?: number): Promise<Forwarder> {
    const forwarder = new Forwarder(options)
    try {
      forwarder.#listening = await listenAt(address, (connection) => void forwarder.#carry(connection), mode)
      return forwarder
    } catch (error) {
      clearTimeout(forwarder.#idleTimer)
      throw error
    }
  }

  /** With the port that port 0 became. */
  get address(): Address {
    if (!this.#listening) throw new RangeError("not listening")
    return this.#listening.address
  }

  /** Connections since the start. */
  get served(): number {
    return this.#served
  }

  /** Takes no more connections, and breaks those that there are off. */
  stop(): void {
    clearTimeout(this.#idleTimer)
    this.#listening?.close()
    for (const connection of this.#connections)
      connection.reset(new MvmError("aborted", "forwarding stopped"))
  }

  async #carry(connection: SocketDuplex): Promise<void> {
    this.#connections.add(connection)
    this.#served += 1
    clearTimeout(this.#idleTimer)
    try {
      const session = await this.#options.session
      const client = await session.client(SESSION_MS)
      await join(connection, client.connect())
    } catch (error) {
      const failure = asMvmError(error)
      connection.reset(failure)
      this.#options.onFailed(failure)
    } finally {
      this.#connections.delete(connection)
      if (this.#connections.size === 0) this.#watchIdle()
    }
  }

  #watchIdle(): void {
    const { idleMs, onIdle } = this.#options
    if (idleMs !== undefined) this.#idleTimer = setTimeout(onIdle, idleMs)
  }
}
