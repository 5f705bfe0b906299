/** One suite over every way records travel: a ring under both isolation rules, and the relay's queue. */

import { describe, expect, test } from "bun:test"
import { createDecipheriv } from "node:crypto"
import { nextKey } from "../../src/channel/keys.ts"
import { Opener } from "../../src/channel/opener.ts"
import { RECORDS_PER_KEY } from "../../src/channel/keys.ts"
import { KIND, type RecordSink, type RecordSource } from "../../src/channel/record.ts"
import { QueueSink, QueueSource } from "../../src/channel/record-queue.ts"
import { RingSink, RingSource } from "../../src/channel/ring-records.ts"
import { Sealer } from "../../src/channel/sealer.ts"
import { concat, toHex, utf8 } from "../../src/lib/bytes.ts"
import { random, sha256 } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { RingConsumer } from "../../src/ring/consumer.ts"
import type { RingMemory } from "../../src/ring/layout.ts"
import { RingProducer } from "../../src/ring/producer.ts"
import { freshRegion, seeded } from "../ring/fresh-region.ts"

const SIGNATURE = random(64)

interface Way {
  readonly sink: RecordSink
  readonly source: RecordSource
  /** After the source took a record: gives the sink its room back. */
  settle(): void
  readonly ring?: RingMemory
}

const WAYS: Record<string, () => Way> = {
  "an arena ring": () => ringWay("arena"),
  "a dedicated ring": () => ringWay("dedicated"),
  "a relay": () => {
    const source = new QueueSource()
    const sink = new QueueSink((record) => source.push(record))
    return { sink, source, settle: () => sink.taken(source.takenBytes) }
  },
}

function ringWay(isolation: "arena" | "dedicated"): Way & { ring: RingMemory } {
  const { region } = freshRegion(65536)
  const consumer = new RingConsumer(region.aToB)
  return {
    sink: new RingSink(new RingProducer(region.aToB)),
    source: new RingSource(consumer, isolation),
    settle: () => consumer.publish(),
    ring: region.aToB,
  }
}

function ends(way: Way, key = random(32), hasStreams = false) {
  const sealer = new Sealer(key, way.sink)
  const opener = new Opener({
    key,
    source: way.source,
    verifyHandshake: (signature) => toHex(signature) === toHex(SIGNATURE),
    hasStreams,
  })
  return { key, sealer, opener }
}

function send(sealer: Sealer, kind: 1 | 2 | 3 | 4, plaintext: Uint8Array, stream = 0): void {
  expect(sealer.trySeal(kind, plaintext, stream)).toBe(true)
  sealer.flush()
}

function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return error instanceof MvmError ? error.code : `not ours: ${error}`
  }
  return "none"
}

for (const [name, make] of Object.entries(WAYS)) {
  describe(`over ${name}`, () => {
    test("records of every length arrive whole and in order, and both digests agree", () => {
      const way = make()
      const { sealer, opener } = ends(way)
      send(sealer, KIND.HANDSHAKE, SIGNATURE)
      expect(opener.tryOpen()!.kind).toBe(KIND.HANDSHAKE)
      way.settle()
      let total = 0
      for (let index = 0; index < 300; index++) {
        const length = index < 200 ? index : (index * 997) % (sealer.maxPlaintextBytes + 1)
        const plaintext = new Uint8Array(length).fill(index)
        send(sealer, KIND.DATA, plaintext)
        expect(opener.tryOpen()).toEqual({
          kind: KIND.DATA,
          stream: 0,
          plaintext: Buffer.from(plaintext),
        } as never)
        way.settle()
        total += length
      }
      send(sealer, KIND.EOF, new Uint8Array(0))
      expect(opener.ended).toBe(false)
      expect(opener.tryOpen()!.kind).toBe(KIND.EOF)
      expect(opener.ended).toBe(true)
      expect(opener.tryOpen()).toBeNull()
      expect([sealer.plaintextBytes, opener.plaintextBytes]).toEqual([total, total])
      expect([sealer.chain.records, opener.chain.records]).toEqual([302, 302])
      expect(toHex(opener.chain.digest())).toBe(toHex(sealer.chain.digest()))
    })

    test("records say which stream they belong to, where there are streams", () => {
      const way = make()
      const { sealer, opener } = ends(way, random(32), true)
      send(sealer, KIND.HANDSHAKE, SIGNATURE)
      opener.tryOpen()
      way.settle()
      for (const [kind, stream] of [
        [KIND.CONTROL, 1],
        [KIND.DATA, 1],
        [KIND.DATA, 65535],
        [KIND.CONTROL, 0],
      ] as const) {
        send(sealer, kind, utf8("x"), stream)
        const opened = opener.tryOpen()!
        way.settle()
        expect([opened.kind, opened.stream]).toEqual([kind, stream])
      }
      expect([sealer.plaintextBytes, opener.plaintextBytes]).toEqual([2, 2])
      expect(toHex(opener.chain.digest())).toBe(toHex(sealer.chain.digest()))
    })

    test("records of a stream are refused where there are none, and ends never belong to one", () => {
      for (const [kind, stream, hasStreams] of [
        [KIND.DATA, 1, false],
        [KIND.CONTROL, 0, false],
        [KIND.EOF, 1, true],
        [KIND.HANDSHAKE, 1, true],
      ] as const) {
        const way = make()
        const { sealer, opener } = ends(way, random(32), hasStreams)
        send(sealer, KIND.HANDSHAKE, SIGNATURE)
        opener.tryOpen()
        send(sealer, kind, new Uint8Array(0), stream)
        expect(codeOf(() => opener.tryOpen())).toBe("record")
      }
    })

    test("says no when there is no room, seals nothing then, and goes on later", () => {
      const way = make()
      const { sealer, opener } = ends(way)
      send(sealer, KIND.HANDSHAKE, SIGNATURE)
      let sent = 0
      while (sealer.trySeal(KIND.DATA, new Uint8Array(8000).fill(sent))) sent++
      expect(sealer.room(8000)).toBeLessThanOrEqual(0)
      sealer.flush()
      const before = sealer.chain.records
      expect(before).toBe(sent + 1)
      opener.tryOpen()
      for (let index = 0; index < sent; index++) expect(opener.tryOpen()!.plaintext[0]).toBe(index)
      expect(opener.tryOpen()).toBeNull()
      way.settle()
      send(sealer, KIND.DATA, new Uint8Array([99]))
      expect(opener.tryOpen()!.plaintext[0]).toBe(99)
    })

    test("nothing is released before the handshake, and a wrong one kills the channel", () => {
      for (const first of [
        { kind: KIND.DATA, plaintext: utf8("early"), code: "record" },
        { kind: KIND.EOF, plaintext: new Uint8Array(0), code: "record" },
        { kind: KIND.HANDSHAKE, plaintext: random(64), code: "signature" },
        { kind: KIND.HANDSHAKE, plaintext: SIGNATURE.subarray(0, 63), code: "signature" },
      ]) {
        const { sealer, opener } = ends(make())
        send(sealer, first.kind, first.plaintext)
        expect(codeOf(() => opener.tryOpen())).toBe(first.code)
        expect(codeOf(() => opener.tryOpen())).toBe(first.code)
        expect(opener.verified).toBe(false)
      }
    })

    test("a second handshake, anything after the end, and an end with content are refused", () => {
      for (const records of [
        [KIND.HANDSHAKE, KIND.HANDSHAKE],
        [KIND.HANDSHAKE, KIND.EOF, KIND.DATA],
        [KIND.HANDSHAKE, KIND.EOF, KIND.EOF],
      ] as const) {
        const { sealer, opener } = ends(make())
        for (const kind of records) {
          send(sealer, kind, kind === KIND.HANDSHAKE ? SIGNATURE : new Uint8Array(0))
        }
        for (let index = 0; index < records.length - 1; index++) expect(opener.tryOpen()).not.toBeNull()
        expect(codeOf(() => opener.tryOpen())).toBe("record")
      }
      const { sealer, opener } = ends(make())
      send(sealer, KIND.HANDSHAKE, SIGNATURE)
      send(sealer, KIND.EOF, utf8("x"))
      opener.tryOpen()
      expect(codeOf(() => opener.tryOpen())).toBe("record")
      expect(opener.ended).toBe(false)
    })

    test("a record under another key does not open", () => {
      const way = make()
      const sealer = new Sealer(random(32), way.sink)
      const opener = new Opener({ key: random(32), source: way.source, verifyHandshake: () => true })
      send(sealer, KIND.HANDSHAKE, SIGNATURE)
      expect(codeOf(() => opener.tryOpen())).toBe("record")
    })
  })
}

describe("a record", () => {
  test("has the documented bytes: head, nonce and associated data, opened here by the runtime's cipher", () => {
    const records: Uint8Array[] = []
    const key = random(32)
    const sealer = new Sealer(key, new QueueSink((record) => records.push(record)))
    send(sealer, KIND.HANDSHAKE, SIGNATURE)
    send(sealer, KIND.DATA, utf8("hello"))
    const [, record] = records
    expect(toHex(record!.subarray(0, 8))).toBe("0500000002000000")
    const nonce = Uint8Array.fromHex("000000000000000000000001")
    const decipher = createDecipheriv("aes-256-gcm", key, nonce)
    decipher.setAAD(Uint8Array.fromHex("05000000020000000000000000000001"))
    decipher.setAuthTag(record!.subarray(8, 24))
    expect(decipher.update(record!.subarray(24)).toString() + decipher.final().toString()).toBe("hello")
    const heads = records.map((each) => each.subarray(0, 24))
    expect(toHex(sealer.chain.digest())).toBe(toHex(sha256(concat(...heads))))
  })

  test("moves to the next key after 2^20 records, by the sequence alone", () => {
    const records: Uint8Array[] = []
    const key = random(32)
    const sink = new QueueSink((record) => records.push(record), Number.MAX_SAFE_INTEGER)
    const source = new QueueSource()
    const { sealer, opener } = ends({ sink, source, settle() {} }, key)
    const empty = new Uint8Array(0)
    sealer.trySeal(KIND.HANDSHAKE, SIGNATURE)
    for (let sequence = 0; sequence < RECORDS_PER_KEY + 2; sequence++) {
      if (sequence > 0) sealer.trySeal(KIND.DATA, empty)
      sealer.flush()
      source.push(records.pop()!)
      const last = sequence === RECORDS_PER_KEY ? source.next(new Uint32Array(6)) : undefined
      expect(last === undefined || last.length === 0).toBe(true)
      if (opener.tryOpen() === null) expect.unreachable()
    }
    sealer.trySeal(KIND.DATA, utf8("after"))
    sealer.flush()
    const record = records.pop()!
    const tail = new Uint8Array(8)
    new DataView(tail.buffer).setBigUint64(0, BigInt(RECORDS_PER_KEY + 2))
    const decipher = createDecipheriv("aes-256-gcm", nextKey(key), concat(new Uint8Array(4), tail))
    decipher.setAAD(concat(record.subarray(0, 8), tail))
    decipher.setAuthTag(record.subarray(8, 24))
    expect(decipher.update(record.subarray(24)).toString() + decipher.final().toString()).toBe("after")
  }, 60_000)
})

describe("another VM that maps the arena", () => {
  test("cannot change a bit of what the record layer reads without the channel ending", () => {
    for (let bit = 0; bit < 8 * (8 + 16 + 5); bit++) {
      const { sink, source, ring } = ringWay("arena")
      const { sealer, opener } = ends({ sink, source, settle() {} })
      send(sealer, KIND.HANDSHAKE, SIGNATURE)
      opener.tryOpen()
      send(sealer, KIND.DATA, utf8("hello"))
      // The handshake took two units; then length, kind, tag at 16, payload at 64.
      const byte = bit >> 3
      const at = 128 + (byte < 8 ? byte : byte < 24 ? byte + 8 : byte + 40)
      ring.bytes[at]! ^= 1 << (bit & 7)
      expect(["record", "protocol"]).toContain(codeOf(() => opener.tryOpen()))
      ring.bytes[at]! ^= 1 << (bit & 7)
      expect(["record", "protocol"]).toContain(codeOf(() => opener.tryOpen()))
    }
  })

  test("cannot replay, swap or drop a record", () => {
    const { sink, source, ring } = ringWay("arena")
    const { sealer, opener } = ends({ sink, source, settle() {} })
    send(sealer, KIND.HANDSHAKE, SIGNATURE)
    opener.tryOpen()
    send(sealer, KIND.DATA, utf8("first"))
    send(sealer, KIND.DATA, utf8("other"))
    const [first, second] = [ring.bytes.slice(128, 256), ring.bytes.slice(256, 384)]
    ring.bytes.set(second, 128)
    ring.bytes.set(first, 256)
    expect(codeOf(() => opener.tryOpen())).toBe("record")

    const again = ringWay("arena")
    const replay = ends({ ...again, settle() {} })
    send(replay.sealer, KIND.HANDSHAKE, SIGNATURE)
    replay.opener.tryOpen()
    send(replay.sealer, KIND.DATA, utf8("first"))
    replay.opener.tryOpen()
    send(replay.sealer, KIND.DATA, utf8("other"))
    again.ring.bytes.set(again.ring.bytes.slice(128, 256), 256)
    expect(codeOf(() => replay.opener.tryOpen())).toBe("record")
  })

  test("can write what it likes where it likes: what comes out was sealed by the sender, in order", () => {
    for (const isolation of ["arena", "dedicated"] as const) {
      for (let seed = 1; seed <= 800; seed++) {
        const pick = seeded(seed)
        const { sink, source, ring } = ringWay(isolation)
        const { sealer, opener } = ends({ sink, source, settle() {} })
        let sent = 0
        let seen = 0
        try {
          for (let step = 0; step < 30; step++) {
            if (step === 0) sealer.trySeal(KIND.HANDSHAKE, SIGNATURE)
            else if (sealer.trySeal(KIND.DATA, new Uint8Array(pick(600)).fill(sent & 255))) sent++
            sealer.flush()
            if (pick(4) === 0) ring.bytes[pick(8192)] = pick(256)
            if (pick(20) === 0) ring.control[pick(1024)] = pick(400)
            const record = pick(2) === 0 ? null : opener.tryOpen()
            if (record === null || record.kind !== KIND.DATA) continue
            expect(record.plaintext.every((byte) => byte === (seen & 255))).toBe(true)
            seen++
          }
        } catch (error) {
          if (!(error instanceof MvmError)) throw error
          expect(["record", "protocol"]).toContain(error.code)
        }
        expect(seen).toBeLessThanOrEqual(sent)
      }
    }
  })
})

describe("a relay", () => {
  test("refuses records beyond its window, of a wrong length, or too long", () => {
    const source = new QueueSource(300)
    const record = new Uint8Array(24)
    expect(codeOf(() => source.push(record.subarray(0, 23)))).toBe("record")
    expect(codeOf(() => source.push(new Uint8Array(25)))).toBe("record")
    expect(codeOf(() => source.push(new Uint8Array(300_000)))).toBe("record")
    source.push(record)
    expect(codeOf(() => source.push(record))).toBe("protocol")
  })

  test("takes a record in parts, as long as they do not go on for ever", () => {
    const source = new QueueSource()
    const record = new Uint8Array(24 + 1000)
    new DataView(record.buffer).setUint32(0, 1000, true)
    source.push(record.subarray(0, 10), true)
    expect(source.ready).toBe(false)
    source.push(record.subarray(10, 600), true)
    source.push(record.subarray(600))
    expect(source.next(new Uint32Array(6))!.length).toBe(1000)
    expect(codeOf(() => source.push(new Uint8Array(0), true))).toBe("record")
    const endless = new QueueSource()
    let parts = 0
    while (codeOf(() => endless.push(new Uint8Array(60_000), true)) === "none") parts++
    expect(parts).toBe(4)
  })

  test("gives a sender room for what was taken, and none for what was never sent", () => {
    const sink = new QueueSink(() => {}, 1000)
    const head = new Uint32Array(6)
    expect(sink.claim(744)).toBe(true)
    sink.put(head, new Uint8Array(744))
    expect([sink.room(1), sink.hasRoom(0), sink.claim(0)]).toEqual([-1, false, false])
    sink.taken(1000)
    expect(sink.room(5000)).toBe(-1)
    expect(sink.room(744)).toBe(744)
    // An older count says nothing new.
    sink.taken(10)
    expect(sink.room(744)).toBe(744)
    expect(codeOf(() => sink.taken(1001))).toBe("protocol")
  })
})
