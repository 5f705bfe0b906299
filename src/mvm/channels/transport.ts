/**
 * @module mvm/channels/transport
 *
 * How the records of a channel will travel: through shared memory where both ends can map it, else over the relay,
 * unless the policy demands memory.
 */

import type { Transport } from "../../channel/decision.ts"
import { MvmError } from "../../lib/errors.ts"
import { peerCredentials } from "../../platform/posix.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import type { Constraints } from "../policy/decide.ts"
import type { Session } from "../session.ts"

/**
 * Relayed channels that one member may have asked for, and have in all: for each, twice a window may wait for it in the
 * MVM's memory.
 */
const MAX_ASKED = 32
const MAX_RELAYED = 64

/** An end as it was when the request came. */
export interface End {
  readonly member: Member
  readonly session: Session
}

/**
 * Whether the arena is within the member's reach. Whoever can write its file can also truncate it under everybody who
 * maps it: a VM gets it through QEMU, a process of the host only as the MVM's own user.
 */
export function isGivenArena({ record, socket }: Member): boolean {
  if (record.config.memoryDevice === "none") return false
  return (
    record.kind !== "local" ||
    (socket !== undefined && peerCredentials(socket.fd).uid === process.geteuid?.())
  )
}

/** @throws MvmError `refused` when the policy demands memory and an end cannot map it. */
export function chooseTransport(constraints: Constraints, ends: readonly End[]): Transport {
  const without = ends.find(({ session }) => !session.canMap)
  if (!without) return "memory"
  if (constraints.transport === "any") return "relay"
  const { name } = without.member.record
  throw new MvmError("refused", `${name} cannot map shared memory, and the policy demands it`, {
    hint: `mvm guest status on ${name} says why; transport = "any" in the rule allows the relay`,
  })
}

/** @throws MvmError `busy` when an end has all the relayed channels that it may have. */
export function checkRelayShare(context: MvmContext, asker: Member, answerer: Member): void {
  for (const { record } of [asker, answerer]) {
    const relayed = context.channels.of(record.uuid).filter((channel) => channel.transport === "relay")
    const asked = relayed.filter((channel) => channel.asker.uuid === asker.record.uuid)
    if (relayed.length < MAX_RELAYED && asked.length < MAX_ASKED) continue
    throw new MvmError("busy", `${record.name} has as many relayed channels as it may`, {
      hint: "end some of its channels first",
    })
  }
}
