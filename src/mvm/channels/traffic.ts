/**
 * @module mvm/channels/traffic
 *
 * How much moves through each channel, as far as the MVM can see it: the cursors in the header page of a region say
 * how far its rings were written, in whole units of ciphertext and record headers; records that it relays it can
 * count. What an end said in FIN is exact and comes later.
 *
 * Trust: whoever maps a region can write any cursor. What is worked out from them is for people to look at, bounded,
 * and decides nothing.
 */

import type { Log } from "../../lib/log.ts"
import { asMvmError } from "../../lib/errors.ts"
import { CURSORS_BYTES, UNIT_BYTES, cursorsIn, type Cursors } from "../../ring/layout.ts"
import type { Channel } from "./channel.ts"
import type { ChannelTable } from "./channel-table.ts"

/** Often enough that no ring's cursor goes round between two looks. */
const PERIOD_MS = 1000

/** No memory is faster; a cursor that is says nothing. */
const MAX_BYTES_PER_MS = 100 * 2 ** 20

/** One direction of a channel. */
export interface Flow {
  /** Since the MVM began to look */
  readonly bytes: number
  readonly bytesPerSecond: number
}

interface Reading {
  readonly cursors: readonly [Cursors, Cursors]
  readonly atMs: number
  readonly flows: readonly [Flow, Flow]
}

const NO_CURSORS: Reading["cursors"] = [
  { tail: 0, head: 0 },
  { tail: 0, head: 0 },
]

export class Traffic {
  readonly #channels: ChannelTable
  readonly #log: Log
  readonly #readings = new WeakMap<Channel, Reading>()
  readonly #relayed = new WeakMap<Channel, [number, number]>()
  readonly #timer: ReturnType<typeof setInterval>

  constructor(channels: ChannelTable, log: Log) {
    this.#channels = channels
    this.#log = log
    this.#timer = setInterval(() => this.look(performance.now()), PERIOD_MS)
  }

  /** From asker to answerer, and back; undefined for a channel that was not looked at yet, or has no region. */
  of(channel: Channel): readonly [Flow, Flow] | undefined {
    return this.#readings.get(channel)?.flows
  }

  /** A sealed record was relayed in `direction`. */
  relayed(channel: Channel, direction: 0 | 1, lengthBytes: number): void {
    let passed = this.#relayed.get(channel)
    if (!passed) this.#relayed.set(channel, (passed = [0, 0]))
    passed[direction] += lengthBytes
  }

  /** Reads the cursors of all open channels. */
  look(nowMs: number): void {
    for (const channel of this.#channels.all()) {
      if (channel.state !== "open") continue
      if (!channel.memory) {
        this.#count(channel, nowMs)
        continue
      }
      try {
        const { memory } = channel
        this.#take(channel, memory.ringBytes / UNIT_BYTES, cursorsIn(memory.peek(CURSORS_BYTES)), nowMs)
      } catch (error) {
        this.#log.debug("traffic", { channel: channel.key, message: asMvmError(error).message })
      }
    }
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #count(channel: Channel, nowMs: number): void {
    const passed = this.#relayed.get(channel) ?? [0, 0]
    const before = this.#readings.get(channel)
    const elapsedMs = Math.max(1, nowMs - (before?.atMs ?? nowMs - PERIOD_MS))
    const flow = (index: 0 | 1): Flow => {
      const moved = passed[index] - (before?.flows[index].bytes ?? 0)
      return { bytes: passed[index], bytesPerSecond: (moved / elapsedMs) * 1000 }
    }
    this.#readings.set(channel, { cursors: NO_CURSORS, atMs: nowMs, flows: [flow(0), flow(1)] })
  }

  #take(channel: Channel, capacityUnits: number, cursors: readonly [Cursors, Cursors], nowMs: number): void {
    const before = this.#readings.get(channel)
    // A ring's cursors begin at 0 with the channel.
    const since = before?.atMs ?? nowMs - (Date.now() - channel.openedMs)
    const elapsedMs = Math.max(1, nowMs - since)
    const flow = (index: 0 | 1): Flow => {
      const old = before?.flows[index] ?? { bytes: 0, bytesPerSecond: 0 }
      const { tail, head } = cursors[index]
      const moved = ((tail - (before?.cursors[index].tail ?? 0)) >>> 0) * UNIT_BYTES
      const isSound = (tail - head) >>> 0 <= capacityUnits && moved <= elapsedMs * MAX_BYTES_PER_MS
      if (!isSound) return { ...old, bytesPerSecond: 0 }
      return { bytes: old.bytes + moved, bytesPerSecond: (moved / elapsedMs) * 1000 }
    }
    this.#readings.set(channel, { cursors, atMs: nowMs, flows: [flow(0), flow(1)] })
  }
}
