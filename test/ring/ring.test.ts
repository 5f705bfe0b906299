import { describe, expect, test } from "bun:test"
import { MvmError } from "../../src/lib/errors.ts"
import { EMPTY, RingConsumer } from "../../src/ring/consumer.ts"
import { PADDING, type RingMemory } from "../../src/ring/layout.ts"
import { NO_ROOM, RingProducer } from "../../src/ring/producer.ts"
import { freshRegion, seeded } from "./fresh-region.ts"

function pair(ringBytes: number, start = 0) {
  const { region, memory } = freshRegion(ringBytes)
  const ring = region.aToB
  Atomics.store(ring.control, ring.tailWord, start | 0)
  Atomics.store(ring.control, ring.headWord, start | 0)
  return { ring, memory, producer: new RingProducer(ring, start), consumer: new RingConsumer(ring, start) }
}

function write(producer: RingProducer, kind: number, payload: Uint8Array): boolean {
  const at = producer.claim(payload.length)
  if (at === NO_ROOM) return false
  producer.memory.words[at >> 2] = payload.length
  producer.memory.words[(at >> 2) + 1] = kind
  producer.memory.bytes.set(payload, at + 64)
  producer.commit()
  return true
}

function read(consumer: RingConsumer): { kind: number; payload: Uint8Array } | undefined {
  const at = consumer.next()
  if (at === EMPTY) return undefined
  const payload = consumer.memory.bytes.slice(at + 64, at + 64 + consumer.payloadBytes)
  const kind = consumer.kindWord
  consumer.release()
  return { kind, payload }
}

describe("a ring", () => {
  // The second start lets every cursor pass 2^32.
  for (const start of [0, 2 ** 32 - 300]) {
    test(`carries records of every length in order, starting at ${start}`, () => {
      for (let seed = 1; seed <= 20; seed++) {
        const { producer, consumer } = pair(4096, start)
        const pick = seeded(seed)
        let written = 0
        let seen = 0
        while (seen < 400) {
          const length = written % 7 === 0 ? pick(producer.maxPayloadBytes + 1) : pick(130)
          const payload = new Uint8Array(length).fill(written & 255)
          if (pick(2) === 0) {
            if (write(producer, (written % 1000) + 1, payload)) written++
            if (pick(3) === 0) producer.publish()
          } else {
            const record = read(consumer)
            if (record === undefined) {
              producer.publish()
              continue
            }
            expect(record.kind).toBe((seen % 1000) + 1)
            expect(record.payload.every((byte) => byte === (seen & 255))).toBe(true)
            seen++
          }
        }
      }
    })
  }

  test("shows nothing before publish, and all of a batch after it", () => {
    const { producer, consumer } = pair(4096)
    for (let index = 0; index < 5; index++) write(producer, 2, new Uint8Array([index]))
    expect(read(consumer)).toBeUndefined()
    producer.publish()
    for (let index = 0; index < 5; index++) expect(read(consumer)!.payload[0]).toBe(index)
    expect(read(consumer)).toBeUndefined()
  })

  test("an aborted claim leaves nothing behind", () => {
    const { producer, consumer } = pair(4096)
    producer.claim(100)
    producer.abort()
    write(producer, 2, new Uint8Array([7]))
    producer.publish()
    expect(read(consumer)!.payload).toEqual(new Uint8Array([7]))
    expect(read(consumer)).toBeUndefined()
  })

  test("says no when full, and takes more once room was given back", () => {
    const { producer, consumer } = pair(4096)
    let count = 0
    while (write(producer, 2, new Uint8Array(64))) count++
    expect(count).toBe(32)
    producer.publish()
    expect(producer.claim(0)).toBe(NO_ROOM)
    expect(producer.hasRoom(0)).toBe(false)
    read(consumer)
    consumer.publish()
    expect(producer.hasRoom(64)).toBe(true)
    expect(write(producer, 2, new Uint8Array(64))).toBe(true)
    expect(producer.drained).toBe(false)
  })

  test("the longest record goes through from every position", () => {
    for (let offset = 0; offset < 64; offset++) {
      const { producer, consumer } = pair(4096)
      for (let index = 0; index < offset; index++) {
        expect(write(producer, 2, new Uint8Array(0))).toBe(true)
        producer.publish()
        read(consumer)
        consumer.publish()
      }
      expect(write(producer, 3, new Uint8Array(producer.maxPayloadBytes).fill(9))).toBe(true)
      producer.publish()
      expect(read(consumer)!.payload.length).toBe(producer.maxPayloadBytes)
    }
  })

  test("a sender of bulk is told lengths that claim accepts and that never stall", () => {
    const { producer, consumer } = pair(8192)
    const pick = seeded(5)
    let stalls = 0
    for (let round = 0; round < 2000; round++) {
      const wanted = 1 + pick(20000)
      const length = producer.bestPayloadBytes(wanted, 1984)
      if (length < 0) {
        stalls++
        producer.publish()
        expect(read(consumer)).toBeDefined()
        while (read(consumer) !== undefined);
        expect(producer.bestPayloadBytes(wanted, 1984)).toBeGreaterThan(0)
        continue
      }
      expect(length).toBeGreaterThan(0)
      expect(length).toBeLessThanOrEqual(Math.min(wanted, 1984))
      expect(write(producer, 2, new Uint8Array(length))).toBe(true)
    }
    expect(stalls).toBeGreaterThan(0)
  })

  test("misuse is a RangeError, not corruption", () => {
    const { producer, consumer } = pair(4096)
    expect(() => producer.claim(producer.maxPayloadBytes + 1)).toThrow(RangeError)
    expect(() => producer.commit()).toThrow(RangeError)
    producer.claim(1)
    expect(() => producer.claim(1)).toThrow(RangeError)
    expect(() => consumer.release()).toThrow(RangeError)
  })
})

describe("a hostile peer", () => {
  const failure = (run: () => unknown): string => {
    try {
      run()
    } catch (error) {
      if (error instanceof MvmError) return `${error.code} ${error.message}`
      throw error
    }
    return "none"
  }
  const setTail = (ring: RingMemory, value: number) => Atomics.store(ring.control, ring.tailWord, value | 0)
  const setHead = (ring: RingMemory, value: number) => Atomics.store(ring.control, ring.headWord, value | 0)

  test("a tail further ahead than the ring is long, or behind the head, kills the ring for good", () => {
    for (const tail of [65, 1000, -1, 2 ** 31]) {
      const { ring, consumer } = pair(4096)
      setTail(ring, tail)
      expect(failure(() => consumer.next())).toStartWith("protocol ring.tail")
      setTail(ring, 0)
      expect(failure(() => consumer.next())).toStartWith("protocol ring.tail")
      expect(failure(() => consumer.ready)).toStartWith("protocol ring.tail")
    }
  })

  test("a head that runs ahead of what was published, or backwards, kills the ring for good", () => {
    for (const head of [2, 64, 65, -1, 2 ** 31]) {
      const { ring, producer } = pair(4096)
      write(producer, 2, new Uint8Array(0))
      producer.publish()
      write(producer, 2, new Uint8Array(0))
      setHead(ring, head)
      expect(failure(() => producer.hasRoom(1984 - 64))).toBe("none")
      expect(failure(() => producer.drained)).toStartWith("protocol ring.head")
      setHead(ring, 1)
      expect(failure(() => producer.drained)).toStartWith("protocol ring.head")
    }
    const { ring, producer } = pair(4096)
    for (let index = 0; index < 10; index++) write(producer, 2, new Uint8Array(0))
    producer.publish()
    setHead(ring, 5)
    expect(producer.drained).toBe(false)
    setHead(ring, 4)
    expect(failure(() => producer.drained)).toStartWith("protocol ring.head")
  })

  test("a record longer than what was published, or than the ring, is refused", () => {
    for (const length of [65, 4096, 2 ** 31, 2 ** 32 - 1]) {
      const { ring, consumer } = pair(4096)
      ring.words[0] = length | 0
      ring.words[1] = 2
      setTail(ring, 2)
      expect(failure(() => consumer.next())).toStartWith("protocol ring.record.length")
    }
  })

  test("padding that does not end with the ring, starts it, or is followed by nothing is refused", () => {
    for (const { at, length, tail } of [
      { at: 0, length: 4096 - 64, tail: 64 },
      { at: 0, length: 0, tail: 2 },
      { at: 60, length: 64, tail: 64 },
      { at: 60, length: 192, tail: 64 },
    ]) {
      const { ring, consumer, producer } = pair(4096)
      for (let index = 0; index < at; index++) write(producer, 2, new Uint8Array(0))
      producer.publish()
      while (read(consumer) !== undefined);
      ring.words[at * 16] = length
      ring.words[at * 16 + 1] = PADDING | 0
      setTail(ring, tail)
      expect(failure(() => consumer.next())).toStartWith("protocol ring.record.padding")
    }
  })

  test("random cursors and records cause no read outside the ring, no endless loop and no other error", () => {
    for (let seed = 1; seed <= 3000; seed++) {
      const pick = seeded(seed)
      const { ring, memory, producer, consumer } = pair(4096)
      try {
        for (let step = 0; step < 40; step++) {
          const action = pick(6)
          if (action === 0) setTail(ring, pick(3) === 0 ? pick(2 ** 32) : pick(70))
          else if (action === 1) setHead(ring, pick(3) === 0 ? pick(2 ** 32) : pick(70))
          else if (action === 2) ring.words[pick(64) * 16] = pick(2) === 0 ? pick(2 ** 32) | 0 : pick(4096)
          else if (action === 3) ring.words[pick(64) * 16 + 1] = pick(3) === 0 ? PADDING | 0 : pick(2 ** 32)
          else if (action === 4) memory[pick(4096)] = pick(256)
          if (pick(2) === 0) {
            const at = consumer.next()
            if (at !== EMPTY) {
              expect(at).toBeGreaterThanOrEqual(0)
              expect(at + 64 + consumer.payloadBytes).toBeLessThanOrEqual(4096)
              consumer.release()
            }
            consumer.requestWakeup()
          } else {
            const at = producer.claim(pick(1000))
            if (at !== NO_ROOM) {
              expect(at % 64).toBe(0)
              expect(at).toBeLessThan(4096)
              producer.commit()
              producer.publish()
            }
            producer.requestWakeup(100)
          }
        }
      } catch (error) {
        if (!(error instanceof MvmError)) throw error
        expect(error.code).toBe("protocol")
      }
    }
  })
})
