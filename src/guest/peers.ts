/**
 * @module guest/peers
 *
 * Whom this VM may reach now, as the MVM says: a page at a time, by name.
 */

import { MvmError } from "../lib/errors.ts"
import type { Peer } from "../wire/fields.ts"
import { AgentClient } from "./agent-client.ts"

/** So many pages are a host of thousands of VMs. */
const MAX_PAGES = 1000

/** @param cut ends it @throws MvmError `no_agent`, `no_mvm`, `busy`. */
export async function listPeers(agentSocket: string, cut?: AbortSignal): Promise<Peer[]> {
  const agent = await AgentClient.connect(agentSocket)
  const close = (): void => agent.close()
  cut?.addEventListener("abort", close)
  try {
    const all: Peer[] = []
    for (let pages = 0; pages < MAX_PAGES; pages += 1) {
      agent.peers = undefined
      agent.send("PEERS", { after: all.at(-1)?.name })
      const { peers, more } = await agent.until(() => agent.peers)
      all.push(...peers)
      if (!more) return all
    }
    throw new MvmError("protocol", "PEER_LIST: it does not end")
  } finally {
    cut?.removeEventListener("abort", close)
    agent.close()
  }
}
