/**
 * @module guest/ping/responder
 *
 * The agent's own answer to pings. It comes to its own socket as any command does, so that a ping takes every step
 * that a channel of a command takes, and what answers is the measured agent.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { PING_SERVICE } from "../../wire/reserved.ts"
import { AgentClient } from "../agent-client.ts"
import { ChannelEnd } from "../channel-end.ts"
import { receivePing, sendPing } from "./exchange.ts"

/** Pings that can be answered at the same time. */
const WAITING = 2
/** A peer that opened a channel and then says nothing is not waited for. */
const PATIENCE_MS = 10_000
const PAUSE_MS = 250

export interface ResponderOptions {
  /** The agent's own */
  readonly socketPath: string
  readonly log: Log
  /** Resolves when the agent is linked to an MVM. */
  linked(gone: AbortSignal): Promise<void>
}

export class PingResponder {
  readonly #options: ResponderOptions
  readonly #clients = new Set<AgentClient>()
  readonly #stopping = new AbortController()

  constructor(options: ResponderOptions) {
    this.#options = options
  }

  /** Answers until {@link stop}. */
  start(): void {
    for (let index = 0; index < WAITING; index += 1) void this.#serve()
  }

  stop(): void {
    this.#stopping.abort()
    for (const client of this.#clients) client.close()
  }

  async #serve(): Promise<void> {
    const { signal } = this.#stopping
    const { linked, log } = this.#options
    while (!signal.aborted) {
      try {
        await linked(signal)
        await this.#answerOne()
      } catch (error) {
        if (signal.aborted) return
        const { code, message } = asMvmError(error)
        log.debug("ping", { code, message })
        await Bun.sleep(PAUSE_MS)
      }
    }
  }

  async #answerOne(): Promise<void> {
    const client = await AgentClient.connect(this.#options.socketPath)
    if (this.#stopping.signal.aborted) return client.close()
    this.#clients.add(client)
    let end: ChannelEnd | undefined
    try {
      end = await ChannelEnd.offer(client, { service: PING_SERVICE, source: undefined, role: "duplex" })
      await this.#answer(client, end)
    } finally {
      end?.close()
      client.close()
      this.#clients.delete(client)
    }
  }

  /** One record there and back; then the asker ends the channel. */
  async #answer(client: AgentClient, end: ChannelEnd): Promise<void> {
    const timer = setTimeout(
      () => client.giveUp(new MvmError("timeout", "the ping stood still")),
      PATIENCE_MS,
    )
    try {
      await sendPing(end, await receivePing(end))
      await client.event(PATIENCE_MS, () => false)
    } catch (error) {
      // The asker leaves when it has what it wanted.
      if (client.failure === undefined) throw error
    } finally {
      clearTimeout(timer)
    }
  }
}
