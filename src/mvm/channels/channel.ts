/**
 * @module mvm/channels/channel
 *
 * What the MVM knows of one channel.
 *
 * ```
 *   ALLOC          REQUEST            EVIDENCE         ACCEPT
 *  ───────► allocated ───► challenged ───────► granted ───────► open ───► closed
 *               │               │                 │               │         ▲
 *               └───────────────┴── any failure ──┴───────────────┴─────────┘
 * ```
 *
 * The region is given back when both ends said CLOSE, or when an end that did not can no longer touch it
 * (its link began a new epoch without naming the channel, or its VM is gone).
 */

import type { DigestMode, Transport } from "../../channel/decision.ts"
import type { ErrorCode } from "../../lib/errors.ts"
import type { ChannelMemory } from "../memory/channel-memory.ts"

export type ChannelState = "allocated" | "challenged" | "granted" | "open" | "closed"

/** Whether an end may still touch the region. */
export interface ChannelEnd {
  readonly uuid: string
  readonly name: string
  readonly program: string
  released: boolean
  /** When this end's software was last found trusted by this life of the MVM, by performance.now(). */
  measuredMs: number
}

/** How far one direction came: index 0 is asker to answerer. */
export interface Direction {
  fin: LoggedEnd | undefined
  receipt: LoggedEnd | undefined
}

export interface EndOfDirection {
  readonly lengthBytes: number
  readonly records: number
  /** 32 bytes */
  readonly digest: Uint8Array
  readonly content: Uint8Array | undefined
  /** 64 bytes, the end's identity key */
  readonly signature: Uint8Array
}

/** A statement the MVM took; it counts, and is passed on, once its row is on disk. */
export interface LoggedEnd extends EndOfDirection {
  readonly logged: Promise<void>
}

export interface Channel {
  /** 16 bytes */
  readonly id: Uint8Array
  /** hex of `id` */
  readonly key: string
  readonly service: string
  readonly asker: ChannelEnd
  readonly answerer: ChannelEnd
  /** The name the asker asked for; a rule may have put the answerer in its place. */
  readonly askedFor: string
  readonly transport: Transport
  /** None on a relay. Final when the channel is granted. */
  memory: ChannelMemory | undefined
  readonly laddress: Uint8Array
  /** The rule that allowed it, as people and the audit know it */
  readonly rule: string
  /** The rule's limit, if it has one */
  readonly maxSeconds: number | undefined
  /** Of plaintext, in each direction */
  readonly maxBytes: number | undefined
  readonly digestMode: DigestMode
  readonly askerProgram: { readonly path: string; readonly digest: string }
  state: ChannelState
  /** The answerer was told where the region is, and may map it whatever became of the channel */
  granted: boolean
  /** Set once the answerer has accepted; resolves when the opening has come to its end, good or bad */
  accepted: Promise<void> | undefined
  /** 32 bytes; empty until granted */
  transcript: Uint8Array
  readonly openedMs: number
  readonly directions: readonly [Direction, Direction]
  /** Why it is over, as its ends are told */
  endCode: ErrorCode | undefined
  endReason: string | undefined
  /** Both directions carry data, so both must end */
  readonly duplex: boolean
}

/** The end `uuid` is at, or undefined when it is at neither: the answer to "may this member speak of it". */
export function endOf(channel: Channel, uuid: string): ChannelEnd | undefined {
  if (channel.asker.uuid === uuid) return channel.asker
  if (channel.answerer.uuid === uuid) return channel.answerer
  return undefined
}

export function otherEnd(channel: Channel, end: ChannelEnd): ChannelEnd {
  return end === channel.asker ? channel.answerer : channel.asker
}

/** The direction in which `end` sends. */
export function directionFrom(channel: Channel, end: ChannelEnd): 0 | 1 {
  return end === channel.asker ? 0 : 1
}

/** Whether all that was sent has its receipt, and something was: an end that leaves now breaks nothing off. */
export function isSettled(channel: Channel): boolean {
  const said = channel.directions.filter(({ fin }) => fin)
  return said.length >= (channel.duplex ? 2 : 1) && said.every(({ receipt }) => receipt)
}
