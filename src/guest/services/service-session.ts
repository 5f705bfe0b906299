/**
 * @module guest/services/service-session
 *
 * One caller's session at a service: each of its streams is a call, and goes to the handler. A run's two streams
 * are two requests, put together here.
 *
 * Trust: every request is the caller's. What it can cause is its own calls, within the service's limits.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import type { Stream } from "../streams/stream.ts"
import { BoundedDuplex, timeIsOver, type ServiceLimits } from "./limits.ts"
import { decodeRequest, type RequestFields } from "./requests.ts"
import { brokenBy, type CallerFacts, type ServiceCall, type ServiceHandler } from "./service.ts"
import { Side } from "./side.ts"

/** How long a run may be without its second stream. */
const SIDE_MS = 10_000

/** What calls of one service have in common. */
export interface ServiceCalls {
  readonly handler: ServiceHandler
  readonly limits: ServiceLimits
  readonly log: Log
  /**
   * Calls under way, of all callers: each is there until nothing of it runs. A service that is read anew goes on with
   * the same.
   */
  readonly active: Set<Promise<void>>
  /** Those of them that this server began. */
  readonly own: Set<Promise<void>>
}

interface WaitingRun {
  readonly stream: Stream
  readonly fields: RequestFields<"RUN">
  readonly timer: ReturnType<typeof setTimeout>
}

export class ServiceSession {
  readonly #calls: ServiceCalls
  readonly #caller: CallerFacts
  readonly #waiting = new Map<number, WaitingRun>()

  constructor(calls: ServiceCalls, caller: CallerFacts) {
    this.#calls = calls
    this.#caller = caller
  }

  /** A stream of the caller's. */
  readonly onStream = (stream: Stream, request: Uint8Array): void => {
    try {
      this.#accept(stream, request)
    } catch (error) {
      stream.reset(asMvmError(error))
    }
  }

  #accept(stream: Stream, payload: Uint8Array): void {
    const request = decodeRequest(payload)
    switch (request.name) {
      case "CONNECT":
        return this.#begin(stream, request.fields.arg, undefined)
      case "RUN": {
        const late = new MvmError("protocol", "RUN: no SIDE follows")
        const timer = setTimeout(() => stream.reset(late), SIDE_MS)
        this.#waiting.set(stream.number, { stream, fields: request.fields, timer })
        stream.broken.addEventListener("abort", () => this.#takeWaiting(stream.number))
        return
      }
      case "SIDE": {
        const run = this.#takeWaiting(request.fields.of)
        if (!run) throw new MvmError("protocol", "SIDE.of: no run waits for it")
        const { arg, terminal } = run.fields
        return this.#begin(run.stream, arg, { stream: stream, terminal })
      }
    }
  }

  #takeWaiting(number: number): WaitingRun | undefined {
    const waiting = this.#waiting.get(number)
    this.#waiting.delete(number)
    clearTimeout(waiting?.timer)
    return waiting
  }

  #begin(
    stream: Stream,
    arg: string | undefined,
    run: { stream: Stream; terminal: RequestFields<"RUN">["terminal"] } | undefined,
  ): void {
    const { limits } = this.#calls
    const streams = run ? [stream, run.stream] : [stream]
    const fail = (error: MvmError): void => streams.forEach((one) => one.reset(error))
    if (this.#calls.active.size >= limits.maxRuns) {
      return fail(new MvmError("busy", `the service serves ${limits.maxRuns} at a time`))
    }
    const { maxMs, maxBytes } = limits
    const timer = maxMs === undefined ? undefined : setTimeout(() => fail(timeIsOver(maxMs)), maxMs)
    const bounded = maxBytes === undefined ? undefined : new BoundedDuplex(stream, maxBytes)
    const call: ServiceCall = {
      caller: this.#caller,
      arg,
      stream: bounded ?? stream,
      run: run && {
        side: new Side(run.stream, "answerer"),
        terminal: run.terminal,
        countErrors: (bytes) => bounded?.countWritten(bytes),
      },
      broken: AbortSignal.any(streams.map(({ broken }) => broken)),
    }
    const running = this.#run(call, fail).finally(() => {
      clearTimeout(timer)
      this.#calls.active.delete(running)
      this.#calls.own.delete(running)
    })
    this.#calls.active.add(running)
    this.#calls.own.add(running)
  }

  async #run(call: ServiceCall, fail: (error: MvmError) => void): Promise<void> {
    const { peer, channel } = this.#caller
    const log = this.#calls.log.with({ peer, channel: channel.slice(0, 8) })
    const startedMs = performance.now()
    const took = (): number => Math.round(performance.now() - startedMs)
    log.debug("call", { program: this.#caller.program.path, run: call.run !== undefined })
    try {
      await this.#calls.handler(call)
      log.debug("called", { milliseconds: took() })
    } catch (error) {
      const failure = call.broken.aborted ? brokenBy(call.broken) : asMvmError(error)
      const cause = failure.cause instanceof Error ? failure.cause.message : undefined
      log.info("call_failed", { code: failure.code, message: failure.message, cause, milliseconds: took() })
      // What failed inside is told by code alone: its words may name what is the service's own.
      fail(failure.code === "internal" ? new MvmError("peer_failed", "the service failed") : failure)
    }
  }
}
