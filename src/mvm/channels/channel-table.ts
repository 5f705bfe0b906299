/**
 * @module mvm/channels/channel-table
 *
 * All channels of this host, their regions, and what of them outlives the MVM: one row a channel, so that a
 * restarted MVM knows which regions may still be in use before any agent has spoken.
 */

import { fromHex, toHex } from "../../lib/bytes.ts"
import type { DigestMode, Transport } from "../../channel/decision.ts"
import type { Log } from "../../lib/log.ts"
import type { ChannelMemory, StoredMemory } from "../memory/channel-memory.ts"
import type { ChannelStore } from "../state/channel-store.ts"
import {
  endOf,
  otherEnd,
  type Channel,
  type ChannelEnd,
  type Direction,
  type EndOfDirection,
  type LoggedEnd,
} from "./channel.ts"

/** What a channel's row holds. */
interface StoredChannel {
  id: string
  service: string
  asker: { uuid: string; name: string; program: string }
  answerer: { uuid: string; name: string; program: string }
  askedFor?: string
  transport: Transport
  /** Null on a relay */
  memory: StoredMemory | null
  transcript: string
  rule: string
  maxSeconds: number | undefined
  maxBytes?: number | undefined
  digestMode?: DigestMode
  askerProgram: { path: string; digest: string }
  openedMs: number
  duplex?: boolean
  ends?: Record<"fin" | "receipt", StoredEnd | null>[]
}

/** A FIN or RECEIPT that was logged: its other half may come in the next life of the MVM. */
interface StoredEnd {
  lengthBytes: number
  records: number
  digest: string
  content: string | null
  signature: string
}

/** Finds the memory of a channel of an earlier life. @throws MvmError `state` when it is not there. */
export type Reclaim = (stored: StoredMemory) => ChannelMemory

export class ChannelTable {
  readonly #channels = new Map<string, Channel>()
  readonly #store: ChannelStore
  readonly #log: Log

  constructor(store: ChannelStore, log: Log) {
    this.#store = store
    this.#log = log
  }

  get size(): number {
    return this.#channels.size
  }

  all(): Channel[] {
    return [...this.#channels.values()]
  }

  of(uuid: string): Channel[] {
    return this.all().filter((channel) => endOf(channel, uuid) !== undefined)
  }

  get(id: Uint8Array): Channel | undefined {
    return this.#channels.get(toHex(id))
  }

  add(channel: Channel): void {
    this.#channels.set(channel.key, channel)
  }

  /** Remember a granted channel across restarts of the MVM, in the transaction of the audit row that makes it one. */
  persist(channel: Channel): void {
    if (!this.#channels.has(channel.key)) return
    const stored: StoredChannel = {
      id: channel.key,
      service: channel.service,
      asker: pick(channel.asker),
      answerer: pick(channel.answerer),
      askedFor: channel.askedFor,
      transport: channel.transport,
      memory: channel.memory?.stored ?? null,
      transcript: toHex(channel.transcript),
      rule: channel.rule,
      maxSeconds: channel.maxSeconds,
      maxBytes: channel.maxBytes,
      digestMode: channel.digestMode,
      askerProgram: channel.askerProgram,
      openedMs: channel.openedMs,
      duplex: channel.duplex,
      ends: channel.directions.map(({ fin, receipt }) => ({
        fin: storeEnd(fin),
        receipt: storeEnd(receipt),
      })),
    }
    this.#store.put(channel.key, JSON.stringify(stored))
  }

  /** `end` can no longer touch the region; when neither can, the region is free again. */
  release(channel: Channel, end: ChannelEnd): void {
    end.released = true
    if (otherEnd(channel, end).released) this.#remove(channel)
    else channel.memory?.expire()
  }

  /** Both ends at once: for a channel that was never granted. */
  discard(channel: Channel): void {
    channel.asker.released = true
    channel.answerer.released = true
    this.#remove(channel)
  }

  /**
   * Take back what an earlier life of the MVM left: its regions stay reserved until both ends released them.
   * A row that cannot be read is removed and said: where its region lies is lost with it. An agent that still holds
   * the channel is told at READY that nobody knows it; what another channel has in that place stays secret meanwhile.
   */
  restore(reclaim: Reclaim): number {
    for (const { key, body } of this.#store.all()) {
      try {
        const channel = revive(JSON.parse(body) as StoredChannel, reclaim)
        this.#channels.set(channel.key, channel)
      } catch (error) {
        this.#log.error("channel_unreadable", { channel: key, message: (error as Error).message })
        this.#store.drop(key)
      }
    }
    return this.#channels.size
  }

  #remove(channel: Channel): void {
    if (!this.#channels.delete(channel.key)) return
    channel.state = "closed"
    channel.memory?.free()
    this.#store.drop(channel.key)
  }
}

function pick(end: ChannelEnd): StoredChannel["asker"] {
  return { uuid: end.uuid, name: end.name, program: end.program }
}

function revive(stored: StoredChannel, reclaim: Reclaim): Channel {
  const end = (who: StoredChannel["asker"]): ChannelEnd => ({
    ...who,
    released: false,
    measuredMs: -Infinity,
  })
  return {
    id: fromHex(stored.id),
    key: stored.id,
    service: stored.service,
    asker: end(stored.asker),
    answerer: end(stored.answerer),
    askedFor: stored.askedFor ?? stored.answerer.name,
    transport: stored.transport,
    memory: stored.memory ? reclaim(stored.memory) : undefined,
    laddress: new Uint8Array(16),
    rule: stored.rule,
    maxSeconds: stored.maxSeconds,
    maxBytes: stored.maxBytes,
    digestMode: stored.digestMode ?? "chain",
    askerProgram: stored.askerProgram,
    state: "open",
    granted: true,
    accepted: undefined,
    transcript: fromHex(stored.transcript),
    openedMs: stored.openedMs,
    directions: [reviveDirection(stored, 0), reviveDirection(stored, 1)],
    endCode: undefined,
    endReason: undefined,
    duplex: stored.duplex ?? false,
  }
}

function storeEnd(end: EndOfDirection | undefined): StoredEnd | null {
  if (!end) return null
  const { lengthBytes, records, digest, content, signature } = end
  return {
    lengthBytes,
    records,
    digest: toHex(digest),
    content: content ? toHex(content) : null,
    signature: toHex(signature),
  }
}

function reviveDirection(stored: StoredChannel, index: 0 | 1): Direction {
  const said = stored.ends?.[index]
  const end = (one: StoredEnd | null | undefined): LoggedEnd | undefined =>
    one
      ? {
          lengthBytes: one.lengthBytes,
          records: one.records,
          digest: fromHex(one.digest),
          content: one.content === null ? undefined : fromHex(one.content),
          signature: fromHex(one.signature),
          logged: Promise.resolve(),
        }
      : undefined
  return { fin: end(said?.fin), receipt: end(said?.receipt) }
}
