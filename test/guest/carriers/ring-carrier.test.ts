import { afterEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { CARRIED_WINDOW_BYTES, costOf, recordOf } from "../../../src/channel/record-queue.ts"
import { RingSink, RingSource } from "../../../src/channel/ring-records.ts"
import { RingCarrier } from "../../../src/guest/carriers/ring-carrier.ts"
import { RegionEnd } from "../../../src/guest/region-end.ts"
import { asMvmError } from "../../../src/lib/errors.ts"
import { regionLayout } from "../../../src/ring/layout.ts"

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

/** A carrier for the asker's command, and the answerer, which maps the memory. */
function carried(ringBytes = 1 << 20) {
  const folder = mkdtempSync(join(tmpdir(), "mvm-carrier-"))
  cleanups.push(() => rmSync(folder, { recursive: true }))
  const path = join(folder, "region")
  const { lengthBytes, header } = regionLayout(ringBytes)
  const bytes = new Uint8Array(lengthBytes)
  bytes.set(header)
  writeFileSync(path, bytes)
  const region = { path, offset: 0, lengthBytes, ringBytes }
  const heard = { records: [] as Uint8Array[], taken: 0, failures: [] as string[], kicks: 0 }
  const carrier = new RingCarrier({
    region,
    asker: true,
    kick: () => (heard.kicks += 1),
    command: {
      record: (record) => heard.records.push(record),
      taken: (takenBytes) => (heard.taken = takenBytes),
      fail: (error) => heard.failures.push(asMvmError(error).code),
    },
  })
  cleanups.push(() => carrier.close())
  const peer = new RegionEnd(region, false)
  cleanups.push(() => peer.unmap())
  return {
    carrier,
    heard,
    peer,
    sink: new RingSink(peer.producer),
    source: new RingSource(peer.consumer, "arena"),
  }
}

function sealed(
  lengthBytes: number,
  fill: number,
): { head: Uint32Array; payload: Uint8Array; record: Uint8Array } {
  const head = new Uint32Array([lengthBytes, 2, fill, fill, fill, fill])
  const payload = new Uint8Array(lengthBytes).fill(fill)
  return { head, payload, record: recordOf(head, payload) }
}

describe("records of a command that maps no memory", () => {
  test("go into the ring as they are, and the other end is woken when it asked", () => {
    const { carrier, heard, peer, source } = carried()
    expect(peer.consumer.requestWakeup()).toBe(true)
    for (let count = 1; count <= 3; count++) carrier.fromCommand(sealed(1000 * count, count).record)
    expect(heard.kicks).toBe(1)
    expect(heard.taken).toBe(6000 + 3 * costOf(24))
    const head = new Uint32Array(6)
    for (let count = 1; count <= 3; count++) {
      expect([...source.next(head)!]).toEqual([...sealed(1000 * count, count).payload])
      expect([...head]).toEqual([...sealed(1000 * count, count).head])
      source.release()
    }
    expect(source.next(head)).toBeUndefined()
  })

  test("wait for room in a full ring, no more of them than the window, and follow in order", () => {
    const { carrier, heard, source, peer } = carried(1 << 16)
    let sent = 0
    expect(() => {
      for (; sent < 1000; sent++) carrier.fromCommand(sealed(30_000, sent & 255).record)
    }).toThrow("more than the window holds")
    expect(sent * costOf(30_024) - heard.taken).toBeLessThanOrEqual(CARRIED_WINDOW_BYTES)
    const head = new Uint32Array(6)
    let seen = 0
    while (seen < sent) {
      const payload = source.next(head)
      if (payload) {
        expect(payload[0]).toBe(seen & 255)
        source.release()
        seen += 1
      } else {
        peer.consumer.publish()
        expect(peer.consumer.takeKick()).toBe(true)
        carrier.kicked()
      }
    }
    expect(heard.failures).toEqual([])
  })

  test("that no ring could hold, or that lie about their length, are refused", () => {
    const { carrier } = carried(1 << 16)
    expect(() => carrier.fromCommand(sealed(33_000, 1).record)).toThrow("longer than one in this ring")
    expect(() => carrier.fromCommand(sealed(1000, 1).record.subarray(0, 1000))).toThrow("relay.length")
  })
})

describe("records of the other end", () => {
  test("come to the command as they are; a command that takes none leaves the rest in the ring", () => {
    const { carrier, heard, sink, peer } = carried()
    const lengths = [0, 1, 5000, 200_000]
    for (const [index, length] of lengths.entries()) {
      const { head, payload } = sealed(length, index)
      expect(sink.claim(length)).toBe(true)
      sink.put(head, payload)
    }
    sink.publish()
    carrier.kicked()
    expect(heard.records).toEqual(lengths.map((length, index) => sealed(length, index).record))
    for (let count = 0; count < 20 && sink.claim(100_000); count++) {
      const { head, payload } = sealed(100_000, count)
      sink.put(head, payload)
      sink.publish()
      carrier.kicked()
    }
    const held = heard.records.reduce((sum, { length }) => sum + costOf(length), 0)
    expect(held).toBeLessThanOrEqual(CARRIED_WINDOW_BYTES)
    expect(peer.producer.drained).toBe(false)
    const before = heard.records.length
    carrier.takenByCommand(held)
    expect(heard.records.length).toBeGreaterThan(before)
    expect(() => carrier.takenByCommand(held - 1)).toThrow("not what was given")
    expect(() => carrier.takenByCommand(Number.MAX_SAFE_INTEGER)).toThrow("not what was given")
  })

  test("that are longer than any may be end the channel, and so does a broken ring; nothing is touched after", () => {
    const long = carried(1 << 20)
    const { head, payload } = sealed(300_000, 1)
    expect(long.peer.producer.claim(300_000)).toBe(0)
    long.peer.producer.memory.words[0] = head[0]!
    long.peer.producer.memory.words[1] = 2
    long.peer.producer.memory.bytes.set(payload, 64)
    long.peer.producer.commit()
    long.peer.producer.publish()
    long.carrier.kicked()
    expect(long.heard.failures).toEqual(["record"])
    const broken = carried()
    const { control, tailWord } = broken.peer.producer.memory
    Atomics.store(control, tailWord, 0x7fff_ffff)
    broken.carrier.kicked()
    expect(broken.heard.failures).toEqual(["protocol"])
    for (const { carrier, heard } of [long, broken]) {
      carrier.kicked()
      carrier.fromCommand(sealed(10, 1).record)
      expect(heard).toMatchObject({ records: [], failures: [expect.any(String)] })
    }
  })
})
