/**
 * @module cli/connect
 *
 * Where the daemon of the host and the agent of a guest are, and one call to the former.
 */

import { join, resolve } from "node:path"
import { localPaths } from "../platform/local-paths.ts"
import { MvmError } from "../lib/errors.ts"
import { RpcClient, type Params } from "../platform/json-rpc.ts"
import type { Call, OptionSpec } from "./command.ts"

const RETRY_MS = 50

export const STATE_OPTION: OptionSpec = {
  flags: "--state <dir>",
  description: "the MVM's state directory (or MVM_STATE)",
}

export const JSON_OPTION: OptionSpec = { flags: "--json", description: "print JSON" }

export const AGENT_OPTIONS: readonly OptionSpec[] = [
  { flags: "--local <name>", description: "use the agent of this local endpoint on the host" },
  STATE_OPTION,
  { flags: "--socket <path>", description: "the agent's socket (or MVM_AGENT; default /run/mvm/agent.sock)" },
]

export function stateDirectory(call: Call): string {
  return stateDirectoryOf(call.text("state"))
}

/** @param named what the command line says, if anything */
export function stateDirectoryOf(named: string | undefined): string {
  return resolve(named ?? process.env["MVM_STATE"] ?? "/var/lib/mvm")
}

/** The agent's socket for this invocation. */
export function agentSocket(call: Call): string {
  return agentSocketOf({ socket: call.text("socket"), local: call.text("local"), state: call.text("state") })
}

/** @param named what the command line says */
export function agentSocketOf(named: Record<"socket" | "local" | "state", string | undefined>): string {
  if (named.socket) return resolve(named.socket)
  if (named.local) return localPaths(stateDirectoryOf(named.state), named.local).agent
  return process.env["MVM_AGENT"] ?? "/run/mvm/agent.sock"
}

/** One request to the daemon. @throws MvmError `no_mvm`, or as the daemon said. */
export async function ask<T>(
  call: Call,
  method: string,
  params: Params = {},
  progress?: (value: unknown) => void,
): Promise<T> {
  return withMvm(call, (client) => client.call<T>(method, params, progress))
}

/** Several requests over one connection, which `cut` closes. @throws MvmError `no_mvm`, or as the daemon said. */
export async function withMvm<T>(
  call: Call,
  work: (client: RpcClient) => Promise<T>,
  cut?: AbortSignal,
): Promise<T> {
  const client = await RpcClient.connect(join(stateDirectory(call), "control.sock"))
  const close = (): void => client.close()
  cut?.addEventListener("abort", close)
  try {
    return await work(client)
  } finally {
    cut?.removeEventListener("abort", close)
    client.close()
  }
}

/** Like {@link ask}, but gives a daemon that does not answer yet up to `waitMs` to do so. */
export async function askWhenUp<T>(call: Call, method: string, waitMs: number): Promise<T> {
  const deadline = performance.now() + waitMs
  for (;;) {
    try {
      return await ask<T>(call, method)
    } catch (error) {
      const isDown = error instanceof MvmError && error.code === "no_mvm"
      if (!isDown || performance.now() >= deadline) throw error
      await Bun.sleep(RETRY_MS)
    }
  }
}
