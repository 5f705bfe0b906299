/**
 * @module guest/record-path
 *
 * How the records of one end get to the other: through memory that this process maps, or by way of the agent. Both
 * say the same to who waits; the record layer and everything above it is the same over either.
 */

import type { Decision } from "../channel/decision.ts"
import { CARRIED_WINDOW_BYTES, QueueSink, QueueSource, RELAY_WINDOW_BYTES } from "../channel/record-queue.ts"
import type { RecordSink, RecordSource } from "../channel/record.ts"
import { RingSink, RingSource } from "../channel/ring-records.ts"
import { MvmError } from "../lib/errors.ts"
import { longestPayloadBytes, regionBytes } from "../ring/layout.ts"
import type { LocalFields } from "../wire/local-link.ts"
import type { Region } from "../wire/local-messages.ts"
import type { AgentClient } from "./agent-client.ts"
import { RegionEnd } from "./region-end.ts"

export interface RecordPath {
  readonly sink: RecordSink
  readonly source: RecordSource
  /** Whether what is waited for can come while this process keeps looking. */
  readonly spins: boolean
  /** Whether a record is there to open. */
  hasData(): boolean
  /** Whether a record with this payload fits. */
  hasRoom(payloadBytes: number): boolean
  /** Asks for an {@link AgentClient.kicked} once there is data. False: it is there already. */
  wantData(): boolean
  wantRoom(payloadBytes: number): boolean
  /** Takes a request back. */
  unwantData(): void
  unwantRoom(): void
  /** After records were published: wakes the other end if it asked. @returns whether it did */
  published(): boolean
  /** After records were read: gives their room back, and wakes the other end if it asked. */
  acknowledge(): void
  close(): void
}

/** @throws MvmError `protocol` for a channel that is not what its decision says, `io` for memory that cannot be mapped. */
export function pathOf(agent: AgentClient, decision: Decision, channel: LocalFields<"CHANNEL">): RecordPath {
  const { region, asker } = channel
  if (!region) return new AgentPath(agent, decision)
  if (region.ringBytes !== decision.ringBytes || region.lengthBytes < regionBytes(region.ringBytes)) {
    throw new MvmError("protocol", "region: its size is not the decision's")
  }
  return new MappedPath(agent, { region, asker, decision })
}

class MappedPath implements RecordPath {
  readonly sink: RingSink
  readonly source: RingSource
  readonly spins = true
  readonly #agent: AgentClient
  readonly #memory: RegionEnd

  constructor(
    agent: AgentClient,
    { region, asker, decision }: { region: Region; asker: boolean; decision: Decision },
  ) {
    this.#agent = agent
    this.#memory = new RegionEnd(region, asker)
    this.sink = new RingSink(this.#memory.producer)
    this.source = new RingSource(this.#memory.consumer, decision.isolation ?? "arena")
  }

  hasData(): boolean {
    return this.#memory.consumer.ready
  }

  hasRoom(payloadBytes: number): boolean {
    return this.#memory.producer.hasRoom(payloadBytes)
  }

  wantData(): boolean {
    return this.#memory.consumer.requestWakeup()
  }

  wantRoom(payloadBytes: number): boolean {
    return this.#memory.producer.requestWakeup(payloadBytes)
  }

  unwantData(): void {
    this.#memory.consumer.cancelWakeup()
  }

  unwantRoom(): void {
    this.#memory.producer.cancelWakeup()
  }

  published(): boolean {
    if (!this.#memory.producer.takeKick()) return false
    this.#agent.kick()
    return true
  }

  acknowledge(): void {
    if (this.#memory.consumer.takeKick()) this.#agent.kick()
  }

  close(): void {
    this.#memory.unmap()
  }
}

class AgentPath implements RecordPath {
  readonly sink: QueueSink
  readonly source: QueueSource
  readonly spins = false
  readonly #agent: AgentClient
  /** Room is given back in pieces of this size, or when nothing is left to read. */
  readonly #batchBytes: number
  #saidBytes = 0

  constructor(agent: AgentClient, decision: Decision) {
    const isRelay = decision.transport === "relay"
    const windowBytes = isRelay ? RELAY_WINDOW_BYTES : CARRIED_WINDOW_BYTES
    this.#agent = agent
    this.#batchBytes = windowBytes / 8
    const send = (record: Uint8Array): void => agent.send("RECORD", { record, more: false })
    this.sink = isRelay
      ? new QueueSink(send, windowBytes)
      : new QueueSink(send, windowBytes, longestPayloadBytes(decision.ringBytes))
    this.source = new QueueSource(windowBytes)
    agent.carry({
      record: (part, more) => this.source.push(part, more),
      taken: (takenBytes) => this.sink.taken(takenBytes),
    })
  }

  hasData(): boolean {
    return this.source.ready
  }

  hasRoom(payloadBytes: number): boolean {
    return this.sink.hasRoom(payloadBytes)
  }

  wantData(): boolean {
    this.#credit()
    return !this.source.ready
  }

  wantRoom(payloadBytes: number): boolean {
    return !this.sink.hasRoom(payloadBytes)
  }

  unwantData(): void {}

  unwantRoom(): void {}

  published(): boolean {
    return false
  }

  acknowledge(): void {
    if (this.source.takenBytes - this.#saidBytes >= this.#batchBytes) this.#credit()
  }

  close(): void {}

  #credit(): void {
    const { takenBytes } = this.source
    if (takenBytes === this.#saidBytes) return
    this.#saidBytes = takenBytes
    this.#agent.send("CREDIT", { taken: takenBytes })
  }
}
