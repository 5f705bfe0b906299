/**
 * @module cli/completion/names
 *
 * Names that only the daemon or an agent knows. Whoever presses Tab waits for them, so they get a moment and no
 * more, and a daemon that is down or stuck has none.
 */

import { join } from "node:path"
import { printable } from "../../lib/log.ts"
import { RpcClient } from "../../platform/json-rpc.ts"
import type { Candidate, NameKind, Wanted } from "./wanted.ts"
import { stateDirectoryOf } from "../connect.ts"

const LIMIT_MS = 500
const MAX_NAMES = 1000

/** @returns none when nobody answers in time */
export async function namesOf(kind: NameKind, wanted: Wanted): Promise<Candidate[]> {
  return fromDaemon(kind === "peer" ? "vm" : kind, wanted).catch(() => [])
}

async function fromDaemon(kind: string, { options }: Wanted): Promise<Candidate[]> {
  const client = await RpcClient.connect(join(stateDirectoryOf(options.get("--state")), "control.sock"))
  // A call whose connection is closed ends.
  const late = setTimeout(() => client.close(), LIMIT_MS)
  try {
    return clean(await client.call<Candidate[]>("names", { kind }))
  } finally {
    clearTimeout(late)
    client.close()
  }
}

/** One candidate is one line, and its words go to a terminal. */
function clean(names: readonly Candidate[]): Candidate[] {
  return names.slice(0, MAX_NAMES).map(({ value, description }) => ({
    value: printable(value),
    description: printable(description),
  }))
}
