/**
 * @module guest/services/service
 *
 * What it takes to be a service: a handler that is given one call of a caller whose facts are known. Commands,
 * sockets and copying are handlers; the server that finds them callers knows no more of them than this.
 */

import { toHex } from "../../lib/bytes.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Decision, DecisionEnd } from "../../channel/decision.ts"
import type { JoinableDuplex } from "../streams/join.ts"
import type { TerminalRequest } from "./requests.ts"
import type { Side } from "./side.ts"

/** Who calls, as the MVM attests it in the DECISION. */
export interface CallerFacts {
  readonly peer: string
  /** 16 bytes */
  readonly uuid: Uint8Array
  readonly verdict: DecisionEnd["verdict"]
  readonly measurement: DecisionEnd["kind"]
  /** Path and hex digest of the asking program, as its measured agent asserts them */
  readonly program: { readonly path: string; readonly digest: string }
  readonly service: string
  readonly rule: string
  /** hex of the channel's id */
  readonly channel: string
}

export interface CalledRun {
  readonly side: Side
  readonly terminal: TerminalRequest | undefined
  /** So much standard error is about to be given. @throws MvmError `too_large` beyond the service's limit */
  countErrors(bytes: number): void
}

export interface ServiceCall {
  readonly caller: CallerFacts
  readonly arg: string | undefined
  /** The caller's standard input and output, or both ways of its connection */
  readonly stream: JoinableDuplex
  /** What `mvm guest exec` has beside that; undefined for a connection */
  readonly run: CalledRun | undefined
  /** Fires when the caller broke off, its channel ended, or a limit did; the streams then fail too. */
  readonly broken: AbortSignal
}

/** Resolves when the call is over; what it throws is told to the caller. */
export type ServiceHandler = (call: ServiceCall) => Promise<void>

/** Why a call broke off. */
export function brokenBy(broken: AbortSignal): MvmError {
  return asMvmError(broken.reason, "aborted")
}

export function callerFacts(decision: Decision): CallerFacts {
  const { asker, service, rule, channelId } = decision
  return {
    peer: asker.name,
    uuid: asker.uuid,
    verdict: asker.verdict,
    measurement: asker.kind,
    program: { path: asker.program.path, digest: toHex(asker.program.digest) },
    service,
    rule,
    channel: toHex(channelId),
  }
}

/** The caller's facts as a service's program reads them. Every value is one line: DECISION and ARG were checked. */
export function callerEnvironment({
  caller,
  arg,
}: Pick<ServiceCall, "caller" | "arg">): Record<string, string> {
  return {
    MVM_PEER: caller.peer,
    MVM_PEER_PROGRAM: caller.program.path,
    MVM_PEER_VERDICT: caller.verdict,
    MVM_SERVICE: caller.service,
    MVM_ARG: arg ?? "",
  }
}
