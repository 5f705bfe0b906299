/**
 * @module mvm/channels/admission
 *
 * Who may open what, before anything is made for it: the policy, whose logs count, and how much memory one member
 * may hold.
 */

import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import type { Isolation } from "../../channel/decision.ts"
import type { Fields } from "../../wire/link.ts"
import type { Channel } from "./channel.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import { decide, type Constraints, type Rule } from "../policy/decide.ts"
import type { Session } from "../session.ts"
import type { VmRecord } from "../state/registry.ts"

/** Of the arena, and of dedicated memory, for one member. */
const SHARE = 0.5

/** @throws MvmError `denied` unless a rule allows this, `no_target`. */
export function authorise(
  context: MvmContext,
  asker: { readonly record: Pick<VmRecord, "name" | "tags"> },
  alloc: Pick<Fields<"ALLOC">, "target" | "service" | "program">,
): { rule: Rule; target: string; constraints: Constraints } {
  const to = context.registry.getVm(alloc.target)
  const decision = decide(context.policy.current, {
    service: alloc.service,
    from: { name: asker.record.name, tags: asker.record.tags },
    to: { name: alloc.target, tags: to?.tags ?? [] },
    program: { path: alloc.program.path, digest: toHex(alloc.program.digest) },
  })
  if (decision.action !== "allow") throw new MvmError(decision.code ?? "denied", decision.reason)
  if (!context.registry.getVm(decision.target)) {
    throw new MvmError("no_target", `there is no VM ${decision.target}`)
  }
  // Its two ends could not be told apart.
  if (decision.target === asker.record.name) {
    throw new MvmError("denied", `${decision.target} has no channel to itself`)
  }
  return decision
}

/** @throws MvmError `denied`. */
export function demandKind(constraints: Constraints, member: Member, session: Session): void {
  if (constraints.measurement.includes(session.kind)) return
  throw new MvmError(
    "denied",
    `policy does not accept a measurement log made by the ${session.kind} (${member.record.name})`,
    { hint: `operator: set measurement = ["kernel", "agent"] in the rule if that is meant` },
  )
}

/** @throws MvmError `denied`. */
export function checkChannelLimit(context: MvmContext, rule: Rule, constraints: Constraints): void {
  if (constraints.maxChannels === undefined) return
  const open = context.channels.all().filter(({ state, rule: of }) => state !== "closed" && of === rule.label)
  if (open.length >= constraints.maxChannels) {
    throw new MvmError("denied", `rule ${rule.label} allows ${constraints.maxChannels} channels at once`)
  }
}

/**
 * No member may keep the others out of the memory there is: a channel that lives is its asker's, one that is over
 * belongs to whichever end has not yet let go of the region. So an end that never says CLOSE harms itself.
 *
 * @throws MvmError `busy`.
 */
export function checkShare(
  context: MvmContext,
  ends: { asker: Member; answerer: Member },
  isolation: Isolation,
): void {
  if (isolation === "dedicated") checkPlaces(context, ends)
  const all = isolation === "arena" ? context.arena.sizeBytes : context.dedicated.limitBytes
  const limitBytes = all * SHARE
  for (const member of [ends.asker, ends.answerer]) {
    const { uuid, name } = member.record
    const heldBytes = context.channels
      .of(uuid)
      .filter(({ memory }) => memory?.isolation === isolation)
      .filter((channel) => holds(channel, uuid))
      .reduce((sum, { memory }) => sum + (memory?.costBytes ?? 0), 0)
    if (heldBytes >= limitBytes) {
      throw new MvmError("busy", `${name} holds its whole share of the shared memory`, {
        hint: "end some of its channels first",
      })
    }
  }
}

/** Nor may one asker have all places of a VM, which others want to reach as well. */
function checkPlaces(context: MvmContext, { asker, answerer }: { asker: Member; answerer: Member }): void {
  const { uuid, name } = answerer.record
  const { all } = context.dedicated.holdings.places(uuid)
  const held = context.channels
    .of(uuid)
    .filter(
      ({ memory, asker: { uuid: by } }) => memory?.isolation === "dedicated" && by === asker.record.uuid,
    )
  if (all === 0 || held.length < Math.max(1, all * SHARE)) return
  throw new MvmError("busy", `${asker.record.name} holds its whole share of the places of ${name}`, {
    hint: "end some of its channels first",
  })
}

function holds(channel: Channel, uuid: string): boolean {
  if (channel.state !== "closed") return channel.asker.uuid === uuid
  return [channel.asker, channel.answerer].some((end) => end.uuid === uuid && !end.released)
}
