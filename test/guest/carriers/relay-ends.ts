/**
 * @module test/guest/carriers/relay-ends
 *
 * Two ends with the real record layer over two carriers, and between them a wire that does what a test wants.
 */

import { expect } from "bun:test"
import { Opener } from "../../../src/channel/opener.ts"
import { QueueSink, QueueSource } from "../../../src/channel/record-queue.ts"
import { KIND } from "../../../src/channel/record.ts"
import { Sealer } from "../../../src/channel/sealer.ts"
import { RelayCarrier, type RelayClock } from "../../../src/guest/carriers/relay-carrier.ts"
import { random } from "../../../src/lib/crypto.ts"
import { BulkQueue, type BulkName } from "../../../src/wire/bulk-queue.ts"
import type { Fields, NamedMessage } from "../../../src/wire/link.ts"

export type Sent = NamedMessage<"RECORD"> | NamedMessage<"CREDIT"> | NamedMessage<"RESUME">

export const CHANNEL_ID = new Uint8Array(16).fill(1)
const KEY = "01".repeat(16)
export const SIGNATURE = random(64)

class EverLater implements RelayClock {
  #ms = 0
  now(): number {
    return (this.#ms += 1000)
  }
  after(): () => void {
    throw new Error("nothing has to wait")
  }
}

/** One that stands still until it is told. */
export class HeldClock implements RelayClock {
  #ms = 0
  readonly #due = new Set<{ atMs: number; work: () => void }>()

  now(): number {
    return this.#ms
  }

  after(ms: number, work: () => void): () => void {
    const due = { atMs: this.#ms + ms, work }
    this.#due.add(due)
    return () => this.#due.delete(due)
  }

  get waiting(): number {
    return this.#due.size
  }

  pass(ms: number): void {
    this.#ms += ms
    for (const due of [...this.#due]) {
      if (due.atMs > this.#ms) continue
      this.#due.delete(due)
      due.work()
    }
  }
}

/** A command and its agent's carrier at one end. */
export class End {
  readonly outgoing: Sent[] = []
  readonly bulk = new BulkQueue({
    ready: () => true,
    send: <N extends BulkName>(name: N, fields: Fields<N>) => {
      this.outgoing.push({ name, fields, requestId: 0 } as unknown as Sent)
    },
  })
  readonly source = new QueueSource()
  readonly sink = new QueueSink((record) => this.carrier.fromCommand(record))
  readonly carrier: RelayCarrier
  failure: unknown
  #saidBytes = 0

  /** @param clock by default one in which a second has passed whenever it is asked */
  constructor(asker: boolean, clock: RelayClock = new EverLater()) {
    this.carrier = new RelayCarrier({
      channelId: CHANNEL_ID,
      key: KEY,
      asker,
      bulk: this.bulk,
      clock,
      command: {
        record: (record) => this.#try(() => this.source.push(record)),
        taken: (bytes) => this.#try(() => this.sink.taken(bytes)),
        fail: (error) => (this.failure ??= error),
      },
    })
  }

  /** The command gives back the room of what it opened. */
  credit(): void {
    const { takenBytes } = this.source
    if (takenBytes > this.#saidBytes) this.carrier.takenByCommand((this.#saidBytes = takenBytes))
  }

  #try(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.failure ??= error
    }
  }
}

/** Asker and answerer, and one direction between them. */
export function pair() {
  const [asker, answerer] = [new End(true), new End(false)]
  const key = random(32)
  const sealer = new Sealer(key, asker.sink)
  const opener = new Opener({ key, source: answerer.source, verifyHandshake: () => true })
  return { asker, answerer, sealer, opener }
}

export function carry(from: End, to: End, count = Infinity): void {
  for (const message of from.outgoing.splice(0, count)) to.carrier.fromPeer(message)
}

/** Sends numbered records until the window is full. @returns the number of the next one */
export function fill(sealer: Sealer, from: number, lengthBytes: number): number {
  if (from === 0 && !sealer.trySeal(KIND.HANDSHAKE, SIGNATURE)) return 0
  let number = from
  while (sealer.trySeal(KIND.DATA, new Uint8Array(lengthBytes).fill(number & 255))) number += 1
  sealer.flush()
  return number
}

/** Opens everything there is. @returns the number of the next one */
export function drain(opener: Opener, from: number): number {
  let number = from
  for (let record = opener.tryOpen(); record; record = opener.tryOpen()) {
    if (record.kind !== KIND.DATA) continue
    expect(record.plaintext.every((byte) => byte === (number & 255))).toBe(true)
    number += 1
  }
  return number
}
