/**
 * @module guest/streams/channel-session
 *
 * A session on a real channel, from its first record to both receipts.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { ChannelEnd } from "../channel-end.ts"
import {
  compareFin,
  compareReceipt,
  receivedStatement,
  sentStatement,
  withoutReceipt,
} from "../end-statement.ts"
import type { Session } from "./session.ts"

/** The longest the other end may take to say FIN and RECEIPT once both directions have ended. */
const SETTLE_MS = 30_000

/** What both ends agreed on. */
export interface SessionSummary {
  readonly sentBytes: number
  readonly receivedBytes: number
}

/**
 * Carries `session` over `end` until both ends have said that this was all, then exchanges FIN and RECEIPT for each
 * direction, so that the audit log has them, and lets go of the channel. A failure is told to the other end.
 *
 * @throws MvmError as the session failed; `unknown_outcome` when all was carried but a receipt is missing.
 */
export async function runSession(end: ChannelEnd, session: Session): Promise<SessionSummary> {
  try {
    await session.run()
    const summary = await settle(end, session)
    end.close()
    return summary
  } catch (error) {
    throw await end.abort(error)
  }
}

async function settle(end: ChannelEnd, { content }: Session): Promise<SessionSummary> {
  const { agent } = end
  const deadline = performance.now() + SETTLE_MS
  const said = sentStatement(end, content?.sent.digest())
  const seen = receivedStatement(end, content?.received.digest())
  agent.send("FIN", said)
  try {
    compareFin(await within(deadline, end, () => agent.peerFin), seen)
    agent.send("RECEIPT", seen)
    compareReceipt(await within(deadline, end, () => agent.peerReceipt), said)
    await within(deadline, end, () => agent.logged >= 2 || undefined)
  } catch (error) {
    throw withoutReceipt(asMvmError(error))
  }
  return { sentBytes: said.lengthBytes, receivedBytes: seen.lengthBytes }
}

async function within<T>(deadline: number, end: ChannelEnd, ready: () => T | undefined): Promise<T> {
  await end.agent.event(deadline - performance.now(), () => ready() !== undefined)
  const value = ready()
  if (value !== undefined) return value
  end.check()
  throw new MvmError("timeout", "the other end did not confirm the end of the session")
}
