/**
 * @module guest/ping/ping
 *
 * One ping: a whole channel to another VM's agent, one record there and back, and the time of every step of it.
 */

import { equalBytes } from "../../lib/bytes.ts"
import { random } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { PING_SERVICE } from "../../wire/reserved.ts"
import { AgentClient } from "../agent-client.ts"
import { ChannelEnd } from "../channel-end.ts"
import { receivePing, sendPing } from "./exchange.ts"

const CONTENT_BYTES = 16
/** For an agent that is just answering somebody else. */
const WAIT_MS = 500

/** Milliseconds. The steps before the first byte overlap where both ends prove themselves at once. */
export interface PingTimes {
  /** The policy, and finding the other end and memory */
  readonly policy: number
  /** This end's signature and quote */
  readonly ownQuote: number
  /** Both ends' evidence, judged by the MVM */
  readonly appraisal: number
  /** The other end's quote */
  readonly peerQuote: number
  /** Memory, decision, acceptance, audit row */
  readonly grant: number
  /** A record there and back over the open channel */
  readonly firstByte: number
  readonly total: number
}

export interface Pong {
  readonly times: PingTimes
  readonly peer: ChannelEnd["peer"]
  readonly decision: ChannelEnd["decision"]
}

export interface PingOptions {
  readonly agentSocket: string
  readonly target: string
  readonly timeoutMs: number
  /** Ends it. */
  readonly cut: AbortSignal
}

/** @throws MvmError as any opening of a channel, `timeout`, or `interrupted`. */
export async function ping({ agentSocket, target, timeoutMs, cut }: PingOptions): Promise<Pong> {
  const startedMs = performance.now()
  const agent = await AgentClient.connect(agentSocket)
  const timer = setTimeout(() => {
    agent.giveUp(new MvmError("timeout", `${target} did not answer within ${timeoutMs} ms`))
  }, timeoutMs)
  const interrupt = (): void => agent.giveUp(new MvmError("interrupted", "interrupted"))
  cut.addEventListener("abort", interrupt)
  let end: ChannelEnd | undefined
  try {
    if (cut.aborted) interrupt()
    end = await ChannelEnd.open(agent, {
      target,
      service: PING_SERVICE,
      role: "duplex",
      digest: "chain",
      waitMs: Math.min(WAIT_MS, timeoutMs),
    })
    const openMs = performance.now()
    const content = random(CONTENT_BYTES)
    await sendPing(end, content)
    if (!equalBytes(await receivePing(end), content)) {
      throw new MvmError("integrity", `${target} answered another record`)
    }
    const overMs = performance.now()
    const stages = agent.stages
    if (!stages) throw new MvmError("protocol", "the MVM did not say how long its steps took")
    return {
      peer: end.peer,
      decision: end.decision,
      times: {
        policy: stages.policyUs / 1000,
        ownQuote: stages.quoteUs / 1000,
        appraisal: stages.appraisalUs / 1000,
        peerQuote: stages.answerUs / 1000,
        grant: stages.grantUs / 1000,
        firstByte: overMs - openMs,
        total: overMs - startedMs,
      },
    }
  } finally {
    clearTimeout(timer)
    cut.removeEventListener("abort", interrupt)
    end?.close()
    agent.close()
  }
}
