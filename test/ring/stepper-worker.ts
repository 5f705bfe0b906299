/**
 * One side of the wake-up protocol, run by test/ring/wakeup.test.ts one atomic operation at a time: before each
 * Atomics call of the code under test this thread waits for the scheduler's leave.
 */

import { RingConsumer } from "../../src/ring/consumer.ts"
import { regionOf } from "../../src/ring/layout.ts"
import { RingProducer } from "../../src/ring/producer.ts"

declare const self: Worker

export const STATE = { idle: 0, asking: 1, granted: 2, finished: 3 } as const

export interface SideTask {
  readonly memory: Uint8Array
  readonly ringBytes: number
  readonly control: Int32Array
  readonly side: 0 | 1
}

const real = { load: Atomics.load, store: Atomics.store, exchange: Atomics.exchange }

self.onmessage = ({ data }: MessageEvent<SideTask>) => {
  const { control, side } = data
  const ask = (): void => {
    real.store(control, side, STATE.asking)
    Atomics.notify(control, side)
    while (real.load(control, side) !== STATE.granted) Atomics.wait(control, side, STATE.asking)
  }
  // The control words of the scheduler are another array: only the ring's operations are steps.
  const stepped =
    <Arguments extends unknown[], Result>(operation: (...args: Arguments) => Result) =>
    (...args: Arguments): Result => {
      ask()
      return operation(...args)
    }
  Atomics.load = stepped(real.load as never) as typeof Atomics.load
  Atomics.store = stepped(real.store as never) as typeof Atomics.store
  Atomics.exchange = stepped(real.exchange as never) as typeof Atomics.exchange
  let verdict: number
  try {
    verdict = SCENARIOS[control[4]!]![side]!(data)
  } finally {
    Object.assign(Atomics, real)
  }
  real.store(control, 2 + side, verdict)
  real.store(control, side, STATE.finished)
  Atomics.notify(control, side)
}

/** What a side reports: how many records it moved, plus these. */
export const ASLEEP = 0x100
export const KICKED = 0x200

type Side = (task: SideTask) => number

function put(producer: RingProducer): void {
  const at = producer.claim(0)
  producer.memory.words[at >> 2] = 0
  producer.memory.words[(at >> 2) + 1] = 2
  producer.commit()
  producer.publish()
}

const produce =
  (count: number): Side =>
  ({ memory, ringBytes }) => {
    const producer = new RingProducer(regionOf(memory, ringBytes).aToB)
    let verdict = 0
    for (let index = 0; index < count; index++) put(producer)
    if (producer.takeKick()) verdict |= KICKED
    return verdict
  }

const drainThenSleep: Side = ({ memory, ringBytes }) => {
  const consumer = new RingConsumer(regionOf(memory, ringBytes).aToB)
  let taken = 0
  for (;;) {
    while (consumer.next() !== -1) {
      consumer.release()
      taken++
    }
    if (consumer.requestWakeup()) return taken | ASLEEP
  }
}

/** The producer fills the ring unseen, then wants room; the consumer, meanwhile, takes what it sees. */
const fillAll: Side = ({ memory, ringBytes }) => {
  const producer = new RingProducer(regionOf(memory, ringBytes).aToB)
  let at = producer.claim(producer.maxPayloadBytes)
  for (let half = 0; half < 2; half++) {
    producer.memory.words[at >> 2] = producer.maxPayloadBytes
    producer.memory.words[(at >> 2) + 1] = 2
    producer.commit()
    if (half === 0) at = producer.claim(producer.maxPayloadBytes)
  }
  producer.publish()
  let verdict = producer.requestWakeup(0) ? ASLEEP : 0
  if (producer.takeKick()) verdict |= KICKED
  return verdict
}

const takeTwo: Side = ({ memory, ringBytes }) => {
  const consumer = new RingConsumer(regionOf(memory, ringBytes).aToB)
  let taken = 0
  for (let attempt = 0; attempt < 3; attempt++) {
    if (consumer.next() === -1) continue
    consumer.release()
    taken++
  }
  consumer.publish()
  return taken | (consumer.takeKick() ? KICKED : 0)
}

/** By number: [producer, consumer]. */
const SCENARIOS: Record<number, readonly [Side, Side]> = {
  0: [produce(1), drainThenSleep],
  1: [produce(2), drainThenSleep],
  2: [fillAll, takeTwo],
}
