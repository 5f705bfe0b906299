/**
 * @module guest/services/client
 *
 * The caller's side: one attested session with a service of another VM, and calls over it.
 */

import type { DigestMode } from "../../channel/decision.ts"
import { MvmError } from "../../lib/errors.ts"
import { AgentClient } from "../agent-client.ts"
import { ChannelEnd } from "../channel-end.ts"
import { runSession, type SessionSummary } from "../streams/channel-session.ts"
import { Session } from "../streams/session.ts"
import type { Stream } from "../streams/stream.ts"
import { encodeRequest, type TerminalRequest } from "./requests.ts"
import { Side } from "./side.ts"

/** Who is called. */
export interface ServiceAddress {
  readonly agentSocket: string
  readonly target: string
  readonly service: string
  readonly digest: DigestMode
  /** How long to wait for the service, 0: not at all */
  readonly waitMs: number
}

export class ServiceClient {
  readonly end: ChannelEnd
  /** Resolves when the session has come to its agreed end. @throws MvmError as it failed. */
  readonly over: Promise<SessionSummary>
  readonly #session: Session

  private constructor(agent: AgentClient, end: ChannelEnd) {
    this.end = end
    this.#session = new Session(end, { hashed: end.decision.digestMode === "sha256" })
    this.over = runSession(end, this.#session).finally(() => agent.close())
    // Who awaits it hears of it; who does not has its streams fail.
    this.over.catch(() => {})
  }

  /** @throws MvmError as the agent or the MVM said; `aborted` when `cancelled` fires first. */
  static async open(
    { agentSocket, target, service, digest, waitMs }: ServiceAddress,
    cancelled?: AbortSignal,
  ): Promise<ServiceClient> {
    const agent = await AgentClient.connect(agentSocket)
    const cancel = (): void => agent.close()
    cancelled?.addEventListener("abort", cancel)
    if (cancelled?.aborted) cancel()
    try {
      return new ServiceClient(
        agent,
        await ChannelEnd.open(agent, { target, service, role: "duplex", digest, waitMs }),
      )
    } catch (error) {
      agent.close()
      throw error
    } finally {
      cancelled?.removeEventListener("abort", cancel)
    }
  }

  /** Whether calls can be made still. */
  get isOpen(): boolean {
    return this.#session.isOpen
  }

  /** Calls under way. */
  get calls(): number {
    return this.#session.streams
  }

  /** Bytes both ways. @throws MvmError `busy`, or as the session ended. */
  connect(arg?: string): Stream {
    return this.#session.open(encodeRequest("CONNECT", { arg }))
  }

  /** A run's standard input and output, and what is beside them. @throws MvmError as {@link connect}. */
  run(arg: string | undefined, terminal: TerminalRequest | undefined): { stream: Stream; side: Side } {
    const stream = this.#session.open(encodeRequest("RUN", { arg, terminal }))
    const side = this.#session.open(encodeRequest("SIDE", { of: stream.number }))
    return { stream, side: new Side(side, "asker") }
  }

  /** No more calls; resolves when those under way are over and both ends agree on what there was. */
  finish(): Promise<SessionSummary> {
    this.#session.finish()
    return this.over
  }

  /** Ends everything at once. */
  fail(error: MvmError): void {
    this.#session.fail(error)
  }
}
