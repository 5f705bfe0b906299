/**
 * @module cli/guest/service-target
 *
 * What the commands that call a service share: how it is named, how long to wait for it, and the session with it.
 */

import { ServiceClient, type ServiceAddress } from "../../guest/services/client.ts"
import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import type { Call, OptionSpec } from "../command.ts"
import { agentSocket, AGENT_OPTIONS } from "../connect.ts"
import { WaitingLine } from "../output.ts"
import { nameOf } from "./transfer.ts"

const DIGESTS = ["chain", "sha256"] as const
const WITHOUT_TIME_MS = 3_600_000

export const CALL_OPTIONS: readonly OptionSpec[] = [
  { flags: "--wait [time]", description: "wait for the service (without a time: 1h; default: do not wait)" },
  { flags: "--digest <kind>", description: "chain, or sha256 to hash the content as well", values: DIGESTS },
  ...AGENT_OPTIONS,
]

/** "db:postgres". @throws MvmError `usage`. */
export function targetAndService(text: string): { target: string; service: string } {
  const colon = text.indexOf(":")
  if (colon < 0) {
    throw new MvmError("usage", `${text} names no service`, { hint: "TARGET:SERVICE, as in db:postgres" })
  }
  return {
    target: nameOf(text.slice(0, colon), "target"),
    service: nameOf(text.slice(colon + 1), "service"),
  }
}

/** @throws MvmError `usage`. */
export function serviceAddress(call: Call, to: { target: string; service: string }): ServiceAddress {
  return {
    agentSocket: agentSocket(call),
    ...to,
    digest: call.oneOf("digest", DIGESTS, "chain"),
    waitMs: call.given("wait") ? call.durationMs("wait", WITHOUT_TIME_MS) : 0,
  }
}

/** Opens the session; a person at a terminal is told what is waited for. @throws MvmError as the MVM said. */
export async function openService(address: ServiceAddress): Promise<ServiceClient> {
  const { target, service, waitMs } = address
  const line = waitMs > 0 ? new WaitingLine(`waiting for service ${service} of ${target}`) : undefined
  try {
    return await ServiceClient.open(address)
  } finally {
    line?.end()
  }
}

/** What is known of the session's other end, for `--json`. */
export function sessionFacts({ end }: ServiceClient): Record<string, string | null> {
  const { decision, peer } = end
  return {
    channel: toHex(decision.channelId),
    peer: peer.name,
    peerVerdict: peer.verdict,
    peerMeasurement: peer.kind,
    peerBoot: toHex(peer.bootId),
    peerProgram: peer.program.path,
    peerProgramDigest: toHex(peer.program.digest),
    service: decision.service,
    rule: decision.rule,
    transport: decision.transport,
    isolation: decision.isolation ?? null,
  }
}
