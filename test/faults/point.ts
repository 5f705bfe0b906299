/**
 * @module test/faults/point
 *
 * Where faults are put: at each message of the protocol, on either side of its passing, and at times of no
 * meaning. Nothing in the program knows of them: a proxy sees the frames go by, and signals do the rest.
 */

import type { Direction } from "../integration/link-proxy.ts"

/** Of local endpoints; QEMU, where there is one, is in test/e2e/faults. `b` is whoever receives. */
export const VICTIMS = ["mvm", "agent a", "agent b", "sender", "receiver", "vtpm a", "vtpm b"] as const
export type Victim = (typeof VICTIMS)[number]

/** The two ends of a transfer. */
export type Member = "a" | "b"

export type Fault =
  | { readonly kind: "kill"; readonly victim: Victim }
  /** Stopped for longer than the link's patience with a torn frame, then let go on. */
  | { readonly kind: "freeze"; readonly victim: Victim }
  | { readonly kind: "cut"; readonly member: Member }
  | { readonly kind: "drop" }
  | { readonly kind: "repeat" }

export type Moment =
  | {
      readonly member: Member
      readonly direction: Direction
      readonly message: string
      readonly phase: "before" | "after"
    }
  | { readonly afterMs: number }

/**
 * How the transfer in which the fault falls is made. `begun`: after the agent of `a` died and begins anew, which is
 * where the fault falls. `relayed`: to a member that maps no memory; `resumed`: with the link of `a` cut in between.
 * `deposited`: left with the MVM, then collected.
 */
export interface Transfer {
  readonly bytes: number
  readonly mode:
    | ("plain" | "verify-first" | "sha256" | "requested" | "slow")
    | ("begun" | "relayed" | "resumed" | "deposited")
}

export interface FaultPoint {
  readonly moment: Moment
  readonly fault: Fault
  readonly transfer: Transfer
}

/** Every message of an opening, a transfer and its end, from `a` who sends to `b` who receives. */
const TRANSITIONS: readonly (readonly [member: Member, direction: Direction, message: string])[] = [
  ["b", "to mvm", "OFFER"],
  ["b", "to guest", "DONE"],
  ["a", "to mvm", "ALLOC"],
  ["a", "to guest", "ALLOCATED"],
  ["a", "to mvm", "REQUEST"],
  ["b", "to guest", "CHALLENGE"],
  ["b", "to mvm", "EVIDENCE"],
  ["b", "to guest", "GRANT"],
  ["b", "to mvm", "ACCEPT"],
  ["a", "to guest", "OPENED"],
  ["a", "to mvm", "KICK"],
  ["b", "to guest", "KICK"],
  ["a", "to mvm", "FIN"],
  ["b", "to guest", "FIN"],
  ["b", "to mvm", "RECEIPT"],
  ["a", "to guest", "RECEIPT"],
  ["a", "to mvm", "CLOSE"],
  ["b", "to mvm", "CLOSE"],
]

const OPENING = new Set(TRANSITIONS.slice(0, 10).map(([, , message]) => message))

/** What only a transfer that lasts is sure to see. */
const PERIODIC: typeof TRANSITIONS = [
  ["a", "to guest", "MEASURE"],
  ["a", "to mvm", "MEASURED"],
  ["b", "to guest", "LEASE"],
]

/** What only a relayed transfer sees. */
const RELAYED: typeof TRANSITIONS = [
  ["a", "to mvm", "RECORD"],
  ["b", "to guest", "RECORD"],
  ["b", "to mvm", "CREDIT"],
  ["a", "to guest", "CREDIT"],
]

/** A relayed transfer whose link begins anew. */
const RESUMED: typeof TRANSITIONS = [
  ["a", "to mvm", "RESUME"],
  ["b", "to guest", "RESUME"],
]

/** A deposit, and its collection. */
const DEPOSITED: typeof TRANSITIONS = [
  ["a", "to mvm", "DEPOSIT"],
  ["a", "to guest", "DEPOSITING"],
  ["a", "to mvm", "DEPOSIT_DATA"],
  ["a", "to mvm", "DEPOSIT_FINISH"],
  ["b", "to mvm", "COLLECT"],
  ["b", "to guest", "COLLECTED"],
  ["b", "to guest", "DEPOSIT_BYTES"],
]

/** An agent's beginning, which follows its end. */
const BEGINNINGS: typeof TRANSITIONS = [
  ["a", "to mvm", "BOOT"],
  ["a", "to guest", "POKE"],
  ["a", "to mvm", "HELLO"],
  ["a", "to guest", "WELCOME"],
  ["a", "to mvm", "READY"],
  ["a", "to guest", "SETTINGS"],
]

const TRANSFERS: readonly Transfer[] = [
  { bytes: 300_000, mode: "plain" },
  { bytes: 3_000_000, mode: "verify-first" },
  { bytes: 0, mode: "plain" },
  { bytes: 20_000, mode: "sha256" },
  { bytes: 100_000, mode: "requested" },
  { bytes: 12_000_000, mode: "plain" },
]

const KILLS: readonly Fault[] = VICTIMS.map((victim) => ({ kind: "kill", victim }))
const DISTURBANCES: readonly Fault[] = [
  { kind: "cut", member: "a" },
  { kind: "cut", member: "b" },
  { kind: "drop" },
  { kind: "repeat" },
  { kind: "freeze", victim: "mvm" },
  { kind: "freeze", victim: "agent b" },
]

/**
 * Commands of a transfer are not there yet while an agent begins. A depositor that never heard of its region cannot let
 * go of it, and the MVM holds it for a minute, for which no round waits: there, only deaths.
 */
function isPossible(fault: Fault, { mode }: Transfer): boolean {
  if (mode === "begun") return !("victim" in fault && /sender|receiver/.test(fault.victim))
  return mode !== "deposited" || fault.kind === "kill"
}

/** A fault at every transition: each process killed before and after it, and each disturbance at it. */
export function everyPoint(): FaultPoint[] {
  const points: FaultPoint[] = []
  const add = (transitions: typeof TRANSITIONS, transferOf: (index: number) => Transfer): void => {
    for (const [member, direction, message] of transitions) {
      for (const phase of ["before", "after"] as const) {
        for (const fault of phase === "before" ? [...KILLS, ...DISTURBANCES] : KILLS) {
          const transfer = transferOf(points.length)
          // Before there is a link, no later frame tells of a lost one: the agent waits for longer than a round does.
          if (fault.kind === "drop" && (message === "BOOT" || message === "POKE")) continue
          if (!isPossible(fault, transfer)) continue
          // Where the reader asks, the two change places until the channel is open.
          const isSwapped = transfer.mode === "requested" && OPENING.has(message)
          const by = isSwapped ? (member === "a" ? "b" : "a") : member
          points.push({ moment: { member: by, direction, message, phase }, fault, transfer })
        }
      }
    }
  }
  add(TRANSITIONS, (index) => TRANSFERS[index % TRANSFERS.length]!)
  add(PERIODIC, () => ({ bytes: 1_500_000, mode: "slow" }))
  add(RELAYED, () => ({ bytes: 2_000_000, mode: "relayed" }))
  add(RESUMED, () => ({ bytes: 2_000_000, mode: "resumed" }))
  add(DEPOSITED, () => ({ bytes: 400_000, mode: "deposited" }))
  add(BEGINNINGS, () => ({ bytes: 300_000, mode: "begun" }))
  return points
}

/** A fault at a time that means nothing. `random` gives 0 up to its argument. */
export function randomPoint(random: (below: number) => number): FaultPoint {
  const faults =
    random(4) === 0 ? DISTURBANCES.filter(({ kind }) => kind !== "drop" && kind !== "repeat") : KILLS
  return {
    moment: { afterMs: random(500) },
    fault: faults[random(faults.length)]!,
    transfer: TRANSFERS[random(TRANSFERS.length)]!,
  }
}

export function describePoint({ moment, fault, transfer }: FaultPoint): string {
  const when =
    "afterMs" in moment
      ? `after ${moment.afterMs} ms`
      : `${moment.phase} ${moment.message} of ${moment.member} (${moment.direction})`
  const what =
    "victim" in fault
      ? `${fault.kind} ${fault.victim}`
      : fault.kind === "cut"
        ? `cut ${fault.member}`
        : fault.kind
  return `${what} ${when}, ${transfer.mode} ${transfer.bytes}`
}
