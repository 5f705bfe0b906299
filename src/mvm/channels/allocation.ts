/**
 * @module mvm/channels/allocation
 *
 * A new channel and, unless it is relayed, its region of the arena.
 */

import type { Transport } from "../../channel/decision.ts"
import { random } from "../../lib/crypto.ts"
import { toHex } from "../../lib/bytes.ts"
import { regionBytes, regionLayout } from "../../ring/layout.ts"
import type { Fields } from "../../wire/link.ts"
import type { Program } from "../../wire/messages.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import type { Constraints, Rule } from "../policy/decide.ts"
import type { ArenaRegion } from "./arena.ts"
import type { Channel } from "./channel.ts"
import type { Match } from "./offers.ts"

/** No ring is made smaller than this for want of room. */
const LEAST_RING_BYTES = 64 * 1024

/** A new region leaves room for so many of its size. */
const SPARE_REGIONS = 16

/** Rings shrink as the arena fills, so that the first channels are fast and the last ones still find room. */
function ringFor(context: MvmContext): number {
  const { freeBytes } = context.arena
  let { ringBytes } = context
  while (ringBytes > LEAST_RING_BYTES && regionBytes(ringBytes) * SPARE_REGIONS > freeBytes) ringBytes /= 2
  return ringBytes
}

export interface Allocation {
  readonly asker: Member
  readonly match: Match
  readonly alloc: Fields<"ALLOC">
  readonly rule: Rule
  readonly constraints: Constraints
  readonly transport: Transport
}

/** @throws MvmError `busy`, `too_large` or `no_space`, see Arena.allocate. */
export function allocate(context: MvmContext, allocation: Allocation): Channel {
  const { asker, match, alloc, rule, constraints, transport } = allocation
  const ringBytes = transport === "memory" ? ringFor(context) : 0
  const region = transport === "memory" ? allocateRegion(context, ringBytes) : undefined
  const id = random(16)
  const channel: Channel = {
    id,
    key: toHex(id),
    service: alloc.service,
    asker: end(asker, alloc.program),
    answerer: end(match.member, match.offer.program),
    askedFor: alloc.target,
    transport,
    region,
    ringBytes,
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

/** Two rings that nobody has used, with their header. */
function allocateRegion(context: MvmContext, ringBytes: number): ArenaRegion {
  const { lengthBytes, header } = regionLayout(ringBytes)
  const region = context.arena.allocate(lengthBytes)
  try {
    context.arena.write(region, 0, header)
    return region
  } catch (error) {
    context.arena.free(region)
    throw error
  }
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
