/**
 * @module platform/local-paths
 *
 * Where the sockets of a local endpoint are under the MVM's state directory: known to the daemon that makes them
 * and to the agent and commands that use them.
 */

import { join } from "node:path"

export function localPaths(stateDirectory: string, name: string): Record<"link" | "tpm" | "agent", string> {
  const base = join(stateDirectory, "run", name)
  return { link: join(base, "link.sock"), tpm: join(base, "tpm.sock"), agent: join(base, "agent.sock") }
}
