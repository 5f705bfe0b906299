/**
 * @module cli/completion/names
 *
 * Names that only the daemon or an agent knows. Whoever presses Tab waits for them, so they get a moment and no
 * more, and a daemon that is down or stuck has none.
 */

import { join } from "node:path"
import { AgentClient } from "../../guest/agent-client.ts"
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
  const isKnownThere =
    kind === "peer" || kind === "deposit" || (kind === "service" && wanted.target !== undefined)
  try {
    if (wanted.isGuest && isKnownThere) return clean(await fromAgent(kind, wanted, late.signal))
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

/** VMs that this one may reach, the services of one of them, or what was left for this one. */
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
  if (kind === "deposit") return depositsOf(socket, late)
  const peers = await listPeers(socket, late)
  if (kind === "peer") return peers.map(({ name, verdict }) => ({ value: name, description: verdict }))
  const services = peers.find(({ name }) => name === target)?.services ?? []
  return [...new Set(services.map(({ name }) => name))].map((value) => ({ value, description: "" }))
}

async function depositsOf(socket: string, late: AbortSignal): Promise<Candidate[]> {
  const agent = await AgentClient.connect(socket)
  const close = (): void => agent.close()
  late.addEventListener("abort", close)
  try {
    agent.send("STATUS", {})
    const { deposits } = JSON.parse(await agent.until(() => agent.state)) as {
      deposits: readonly { id: string; source: string; service: string }[] | null
    }
    return (deposits ?? []).map(({ id, source, service }) => ({
      value: id,
      description: `${service} of ${source}`,
    }))
  } finally {
    late.removeEventListener("abort", close)
    agent.close()
  }
}

/** One candidate is one line, and its words go to a terminal. */
function clean(names: readonly Candidate[]): Candidate[] {
  return names.slice(0, MAX_NAMES).map(({ value, description }) => ({
    value: printable(value),
    description: printable(description),
  }))
}
