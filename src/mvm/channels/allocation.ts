/**
 * @module mvm/channels/allocation
 *
 * A new channel and, unless it is relayed, its memory: of its own where that can be done, else a region of the arena,
 * unless the rule demands one of them.
 */

import type { Transport } from "../../channel/decision.ts"
import { random } from "../../lib/crypto.ts"
import { toHex } from "../../lib/bytes.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Fields } from "../../wire/link.ts"
import type { Program } from "../../wire/messages.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import { ArenaMemory, type ChannelMemory } from "../memory/channel-memory.ts"
import { ringThatFits } from "../memory/ring-size.ts"
import type { Constraints, Rule } from "../policy/decide.ts"
import { checkShare } from "./admission.ts"
import type { Channel } from "./channel.ts"
import type { Match } from "./offers.ts"

export interface Allocation {
  readonly asker: Member
  readonly match: Match
  readonly alloc: Fields<"ALLOC">
  readonly rule: Rule
  readonly constraints: Constraints
  readonly transport: Transport
}

/** @throws MvmError `busy`, `too_large`, `no_space`; `denied` where the rule demands what cannot be done. */
export function allocate(context: MvmContext, allocation: Allocation): Channel {
  const { asker, match, alloc, rule, constraints, transport } = allocation
  const memory = transport === "memory" ? reserve(context, allocation) : undefined
  const id = random(16)
  const channel: Channel = {
    id,
    key: toHex(id),
    service: alloc.service,
    asker: end(asker, alloc.program),
    answerer: end(match.member, match.offer.program),
    askedFor: alloc.target,
    transport,
    memory,
    laddress: random(16),
    rule: rule.label,
    maxSeconds: constraints.maxSeconds,
    maxBytes: constraints.maxBytes,
    digestMode: constraints.digest === "sha256" ? "sha256" : alloc.digest,
    askerProgram: { path: alloc.program.path, digest: toHex(alloc.program.digest) },
    state: "allocated",
    granted: false,
    accepted: undefined,
    transcript: new Uint8Array(0),
    openedMs: Date.now(),
    directions: [
      { fin: undefined, receipt: undefined },
      { fin: undefined, receipt: undefined },
    ],
    endCode: undefined,
    endReason: undefined,
    duplex: alloc.role === "duplex",
  }
  context.channels.add(channel)
  return channel
}

function reserve(context: MvmContext, { asker, match, rule, constraints }: Allocation): ChannelMemory {
  const { dedicated } = context
  const ends = { asker, answerer: match.member }
  const { isolation } = constraints
  if (isolation !== "arena") {
    try {
      checkShare(context, ends, "dedicated")
      return dedicated.reserve(asker.record, match.member.record)
    } catch (error) {
      const demanded = isolation === "dedicated"
      if (!(error instanceof MvmError)) throw error
      if (demanded) throw error.code === "denied" ? unmet(rule, error) : error
      context.log.debug("arena_instead", { asker: asker.record.name, message: error.message })
    }
  }
  return inArena(context, ends)
}

/**
 * A region of the arena for a channel whose own memory could not be given to both ends.
 *
 * @throws what kept it from that, where the rule demands such memory; else as {@link allocate}.
 */
export function arenaInstead(
  context: MvmContext,
  { asker, match, constraints }: Pick<Allocation, "asker" | "match" | "constraints">,
  cause: unknown,
): ChannelMemory {
  if (constraints.isolation === "dedicated") throw cause
  const { message } = asMvmError(cause)
  context.log.warn("arena_instead", { asker: asker.record.name, answerer: match.member.record.name, message })
  return inArena(context, { asker, answerer: match.member })
}

function inArena(context: MvmContext, ends: { asker: Member; answerer: Member }): ChannelMemory {
  checkShare(context, ends, "arena")
  const { arena } = context
  return ArenaMemory.allocate(arena, ringThatFits(context.ringBytes, arena.freeBytes))
}

/** What a rule demands and cannot be done: such a rule allows nothing, for less would be more than was written. */
function unmet(rule: Rule, { message, hint }: MvmError): MvmError {
  return new MvmError("denied", `${rule.label} demands isolation = "dedicated", and ${message}`, { hint })
}

function end(member: Member, program: Program): Channel["asker"] {
  return {
    uuid: member.record.uuid,
    name: member.record.name,
    program: program.path,
    released: false,
    measuredMs: -Infinity,
  }
}
