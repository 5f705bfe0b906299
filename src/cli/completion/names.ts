/**
 * @module cli/completion/names
 *
 * Names that only the daemon or an agent knows. Whoever presses Tab waits for them, so they get a moment and no
 * more, and a daemon that is down or stuck has none.
 */

import { join } from "node:path"
import { listPeers } from "../../guest/peers.ts"
import { printable } from "../../lib/log.ts"
import { RpcClient } from "../../platform/json-rpc.ts"
import { agentSocketOf, stateDirectoryOf } from "../connect.ts"
import type { Candidate, NameKind, Wanted } from "./wanted.ts"

const LIMIT_MS = 500
const MAX_NAMES = 1000

/** @returns none when nobody answers in time */
export async function namesOf(kind: NameKind, wanted: Wanted): Promise<Candidate[]> {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), LIMIT_MS)
  const isPeers = wanted.isGuest && (kind === "peer" || (kind === "service" && wanted.target !== undefined))
  try {
    if (isPeers) return clean(await fromAgent(kind, wanted, late.signal))
    return clean(await fromDaemon(kind === "peer" ? "vm" : kind, wanted, late.signal))
  } catch {
    return []
  } finally {
    clearTimeout(timer)
  }
}

async function fromDaemon(kind: string, { options }: Wanted, late: AbortSignal): Promise<Candidate[]> {
  const client = await RpcClient.connect(join(stateDirectoryOf(options.get("--state")), "control.sock"))
  const close = (): void => client.close()
  late.addEventListener("abort", close)
  try {
    return await client.call<Candidate[]>("names", { kind })
  } finally {
    late.removeEventListener("abort", close)
    client.close()
  }
}

/** VMs that this one may reach, or the services of one of them. */
async function fromAgent(
  kind: NameKind,
  { options, target }: Wanted,
  late: AbortSignal,
): Promise<Candidate[]> {
  const socket = agentSocketOf({
    socket: options.get("--socket"),
    local: options.get("--local"),
    state: options.get("--state"),
  })
  const peers = await listPeers(socket, late)
  if (kind === "peer") return peers.map(({ name, verdict }) => ({ value: name, description: verdict }))
  const services = peers.find(({ name }) => name === target)?.services ?? []
  return [...new Set(services.map(({ name }) => name))].map((value) => ({ value, description: "" }))
}

/** One candidate is one line, and its words go to a terminal. */
function clean(names: readonly Candidate[]): Candidate[] {
  return names.slice(0, MAX_NAMES).map(({ value, description }) => ({
    value: printable(value),
    description: printable(description),
  }))
}
