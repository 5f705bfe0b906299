/**
 * @module guest/services/server
 *
 * One service of this VM: offers that stand as long as it runs, and a session for each caller. An offer serves one
 * channel, so some stand side by side, and each is made again as soon as it is taken; agent and MVM may come and go.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { pause } from "../../lib/pause.ts"
import { AgentClient } from "../agent-client.ts"
import { ChannelEnd } from "../channel-end.ts"
import { runSession } from "../streams/channel-session.ts"
import { Session } from "../streams/session.ts"
import type { ServiceLimits } from "./limits.ts"
import { callerFacts, type ServiceHandler } from "./service.ts"
import { ServiceSession, type ServiceCalls } from "./service-session.ts"

/** Callers that can come at the same instant without one finding nobody. */
const STANDING_OFFERS = 4
const FIRST_RETRY_MS = 100
const LAST_RETRY_MS = 5_000
/** How long sessions may take to end once the service stops. */
const STOP_MS = 5_000
/** How long calls may take after that: a run that is asked to end may take 5 s, and is ended then. */
const LAST_CALLS_MS = 7_000

export interface ServiceOptions {
  readonly name: string
  /** Only callers from this VM; undefined: whomever the policy lets */
  readonly source: string | undefined
  readonly handler: ServiceHandler
  readonly limits: ServiceLimits
  /** Calls of the same service as it was before; undefined: there are none */
  readonly active?: Set<Promise<void>>
}

export class ServiceServer {
  readonly name: string
  readonly #agentSocket: string
  readonly #options: ServiceOptions
  readonly #log: Log
  readonly #calls: ServiceCalls
  readonly #stopping = new AbortController()
  readonly #waiting = new Set<AgentClient>()
  readonly #sessions = new Map<Session, Promise<void>>()
  #onOffered: (() => void) | undefined

  /** @param onOffered called once, when callers can come */
  constructor(agentSocket: string, options: ServiceOptions, log: Log, onOffered?: () => void) {
    this.name = options.name
    this.#agentSocket = agentSocket
    this.#options = options
    this.#log = log.with({ service: options.name })
    const { handler, limits, active = new Set() } = options
    this.#calls = { handler, limits, log: this.#log, active, own: new Set() }
    this.#onOffered = onOffered
    for (let offer = 0; offer < STANDING_OFFERS; offer++) void this.#stand()
  }

  get calls(): number {
    return this.#calls.own.size
  }

  get sessions(): number {
    return this.#sessions.size
  }

  /** Takes the offers back; resolves when the sessions that there are have come to their end by themselves. */
  async leave(): Promise<void> {
    this.#withdraw()
    for (const session of this.#sessions.keys()) session.finish()
    await Promise.all(this.#sessions.values())
    await Promise.all(this.#calls.own)
  }

  /** Takes the offers back, breaks calls off and resolves when all sessions and what ran for them have ended. */
  async stop(): Promise<void> {
    this.#withdraw()
    const error = new MvmError("aborted", "the service stopped")
    for (const session of this.#sessions.keys()) {
      session.resetAll(error)
      session.finish()
    }
    const all = Promise.all(this.#sessions.values())
    await atMost(all, STOP_MS)
    for (const session of this.#sessions.keys()) session.fail(error)
    await all
    await atMost(Promise.all(this.#calls.own), LAST_CALLS_MS)
  }

  #withdraw(): void {
    this.#stopping.abort()
    for (const agent of this.#waiting) agent.close()
  }

  /** One standing offer after the other. */
  async #stand(): Promise<void> {
    let retryMs = FIRST_RETRY_MS
    while (!this.#stopping.signal.aborted) {
      let agent: AgentClient | undefined
      try {
        agent = await AgentClient.connect(this.#agentSocket)
        this.#waiting.add(agent)
        const { name: service, source } = this.#options
        const end = await ChannelEnd.offer(agent, { service, source, role: "duplex" }, () => this.#offered())
        retryMs = FIRST_RETRY_MS
        this.#waiting.delete(agent)
        this.#serve(agent, end)
      } catch (error) {
        agent?.close()
        if (agent) this.#waiting.delete(agent)
        if (this.#stopping.signal.aborted) return
        const { code, message } = asMvmError(error)
        this.#log.warn("offer_failed", { code, message })
        await pause(retryMs, this.#stopping.signal)
        retryMs = Math.min(retryMs * 2, LAST_RETRY_MS)
      }
    }
  }

  #offered(): void {
    this.#onOffered?.()
    this.#onOffered = undefined
  }

  #serve(agent: AgentClient, end: ChannelEnd): void {
    const caller = callerFacts(end.decision)
    const { onStream } = new ServiceSession(this.#calls, caller)
    const session = new Session(end, { hashed: end.decision.digestMode === "sha256", onStream })
    const { peer, program, verdict, rule, channel } = caller
    const log = this.#log.with({ peer, channel: channel.slice(0, 8) })
    log.info("session", { program: program.path, verdict, rule })
    const running = runSession(end, session)
      .then(({ sentBytes, receivedBytes }) => log.info("session_ended", { sentBytes, receivedBytes }))
      .catch((error: unknown) => {
        const { code, message } = asMvmError(error)
        log.warn("session_failed", { code, message })
      })
      .finally(() => {
        agent.close()
        this.#sessions.delete(session)
      })
    this.#sessions.set(session, running)
    if (this.#stopping.signal.aborted) session.finish()
  }
}

async function atMost(work: Promise<unknown>, timeMs: number): Promise<void> {
  const over = new AbortController()
  await Promise.race([work.finally(() => over.abort()), pause(timeMs, over.signal)])
}
