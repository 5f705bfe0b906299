/**
 * @module guest/services/standing-session
 *
 * A session with a service that is made again when it ends: the target was started anew, the MVM was, a limit of time
 * was reached. After a REVOKE one more is asked for, and the answer to that is final.
 *
 *     OPEN --it ended, or the service leaves and a call is made--> OPENING --opened--> OPEN
 *       |                                                          |   ^
 *       |                                                          +---+ failed: pause
 *       +--revoked--> ASKED --opened--> OPEN
 *                       +--refused--> CLOSED                       close, in any state: CLOSED
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { pause } from "../../lib/pause.ts"
import { ServiceClient, type ServiceAddress } from "./client.ts"

/** How long the MVM holds a request for a service that is not there, before it is made again. */
const HELD_MS = 60_000
const FIRST_PAUSE_MS = 100
const LAST_PAUSE_MS = 5_000

export interface StandingEvents {
  /** The session ended, or could not be made again; said once for each reason. */
  onLost(reason: MvmError): void
  /** It is there again. */
  onBack(client: ServiceClient): void
  /** The channel was revoked, and no other one may take its place. */
  onRevoked(reason: MvmError): void
}

export class StandingSession {
  readonly #address: ServiceAddress
  readonly #events: StandingEvents
  #client: ServiceClient | undefined
  #waiting = Promise.withResolvers<void>()
  readonly #closing = new AbortController()
  #isOpening = false
  #lastReason = ""

  private constructor(address: ServiceAddress, events: StandingEvents, client: ServiceClient) {
    this.#address = address
    this.#events = events
    this.#adopt(client)
  }

  /** @throws MvmError as the first session could not be opened; `aborted` when `cancelled` fires first. */
  static async open(
    address: ServiceAddress,
    events: StandingEvents,
    cancelled?: AbortSignal,
  ): Promise<StandingSession> {
    return new StandingSession(address, events, await ServiceClient.open(address, cancelled))
  }

  /** The session, or the next one if it comes within `waitMs`. @throws MvmError `no_receiver`. */
  async client(waitMs: number): Promise<ServiceClient> {
    if (!this.#client?.isOpen) {
      // A service that leaves serves its present connections still; new ones need a new session.
      void this.#again()
      const timer = Promise.withResolvers<void>()
      const handle = setTimeout(timer.resolve, waitMs)
      await Promise.race([this.#waiting.promise, timer.promise])
      clearTimeout(handle)
    }
    if (this.#client?.isOpen) return this.#client
    const { target, service } = this.#address
    throw new MvmError("no_receiver", `there is no session with service ${service} of ${target}`)
  }

  /** No more sessions; resolves when the present one has come to its agreed end. @throws MvmError as it failed. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#client?.finish()
  }

  #adopt(client: ServiceClient): void {
    this.#client = client
    this.#lastReason = ""
    this.#waiting.resolve()
    client.over.then(
      () => this.#ended(client, new MvmError("aborted", "the service ended it")),
      (error: unknown) => this.#ended(client, asMvmError(error)),
    )
  }

  #ended(client: ServiceClient, reason: MvmError): void {
    // There may be a newer one already.
    if (client !== this.#client) return
    this.#client = undefined
    if (this.#isClosed) return
    this.#lost(reason)
    void this.#again(reason.code === "revoked" ? reason : undefined)
  }

  /** @param revoked why the last session was; then the next attempt decides, for what is allowed now is asked anew */
  async #again(revoked?: MvmError): Promise<void> {
    if (this.#isOpening) return
    this.#isOpening = true
    this.#waiting = Promise.withResolvers()
    let pauseMs = FIRST_PAUSE_MS
    while (!this.#isClosed) {
      try {
        const waitMs = revoked ? 0 : HELD_MS
        const client = await ServiceClient.open({ ...this.#address, waitMs }, this.#closing.signal)
        this.#isOpening = false
        this.#adopt(client)
        this.#events.onBack(client)
        return
      } catch (error) {
        if (this.#isClosed) return
        if (revoked) {
          this.#closing.abort()
          return this.#events.onRevoked(revoked)
        }
        const reason = asMvmError(error)
        // The request was held as long as it may be; there is nothing new to say.
        if (reason.code !== "no_receiver") this.#lost(reason)
      }
      await pause(pauseMs, this.#closing.signal)
      pauseMs = Math.min(pauseMs * 2, LAST_PAUSE_MS)
    }
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted
  }

  #lost(reason: MvmError): void {
    if (reason.message === this.#lastReason) return
    this.#lastReason = reason.message
    this.#events.onLost(reason)
  }
}
