/**
 * @module test/fuzz/targets/channel
 *
 * What a peer, or any VM that maps the arena, can put in front of an end: DECISION, the sealed grant, the ring's
 * header and records, and records of the relay.
 */

import { encodeDecision, parseDecision, type Decision } from "../../../src/channel/decision.ts"
import { Opener } from "../../../src/channel/opener.ts"
import { QueueSource } from "../../../src/channel/record-queue.ts"
import { KIND } from "../../../src/channel/record.ts"
import { RingSink, RingSource } from "../../../src/channel/ring-records.ts"
import { Sealer } from "../../../src/channel/sealer.ts"
import { concat, equalBytes } from "../../../src/lib/bytes.ts"
import { p256Ecdh, p256PublicKey, sha256 } from "../../../src/lib/crypto.ts"
import { EMPTY, RingConsumer } from "../../../src/ring/consumer.ts"
import {
  HEADER_PAGE_BYTES,
  MIN_RING_BYTES,
  UNIT_BYTES,
  regionLayout,
  regionOf,
} from "../../../src/ring/layout.ts"
import { NO_ROOM, RingProducer } from "../../../src/ring/producer.ts"
import { decodeGrant, encodeGrant, GrantOpener, GrantSealer } from "../../../src/tcb/grant.ts"
import { hpkeOpen, hpkeSeal } from "../../../src/tcb/hpke.ts"
import type { Random } from "../random.ts"
import { promise, type Target } from "../target.ts"

const KEY = new Uint8Array(32).fill(9)
const SIGNATURE = new Uint8Array(64).fill(5)
const PRIVATE = sha256(KEY)
const PUBLIC = p256PublicKey(PRIVATE)

function sampleDecision(): Decision {
  const end = (name: string) => ({
    uuid: sha256(KEY).subarray(0, 16),
    name,
    identityKey: PUBLIC,
    verdict: "trusted" as const,
    bootId: sha256(KEY).subarray(16),
    kind: "kernel" as const,
    program: { path: "/usr/bin/mvm", digest: sha256(KEY) },
  })
  return {
    channelId: new Uint8Array(16).fill(7),
    timeMs: 1_700_000_000_000,
    asker: end("a"),
    answerer: end("b"),
    role: "send",
    service: "default",
    rule: "policy.toml:1",
    transport: "memory",
    isolation: "arena",
    ringBytes: 4096,
    digestMode: "chain",
    maxBytes: 10,
    mvmMeasurement: sha256(KEY),
  }
}

const decision: Target = {
  name: "decision",
  seeds: () => [encodeDecision(sampleDecision())],
  words: ["untrusted", "agent", "duplex", "relay", "dedicated", "sha256", "\u0000", "\u001b"],
  run: (input) => {
    promise(equalBytes(encodeDecision(parseDecision(input)), input), "another encoding")
    return "decision"
  },
}

const REGION = {
  laddress: KEY.subarray(16),
  tag: new Uint8Array(0),
  path: "",
  offset: 4096,
  lengthBytes: 12288,
  ringBytes: 4096,
}

const grant: Target = {
  name: "grant",
  seeds: () => [
    encodeGrant(REGION),
    encodeGrant({ ...REGION, tag: KEY.subarray(16) }),
    encodeGrant({ ...REGION, path: "/proc/4711/fd/9" }),
  ],
  words: ["/", "\u0000", "/proc/self/fd/0", "/dev/shm/../../etc/passwd"],
  run: (input) => {
    promise(equalBytes(encodeGrant(decodeGrant(input)), input), "another encoding")
    return "grant"
  },
}

const recipient = { recipientPublic65: PUBLIC, zgen: async (point: Uint8Array) => p256Ecdh(PRIVATE, point) }
const hpkeSeed = await hpkeSeal(PUBLIC, KEY, new Uint8Array(50))

const hpke: Target = {
  name: "hpke",
  seeds: () => [hpkeSeed],
  run: async (input) => {
    const opened = await hpkeOpen(recipient, KEY, input)
    promise(equalBytes(input, hpkeSeed) && opened.length === 50, "what nobody sealed was opened")
    return "opened"
  },
}

const epoch = { recipientUuid: KEY.subarray(16), epoch: KEY.subarray(16) }
const sealer = new GrantSealer(PUBLIC, epoch)
const grantOpener = await GrantOpener.begin(recipient, epoch, sealer.enc)
const about = { channelId: KEY.subarray(16), context: KEY }
const sealedSeeds = [0, 1].map(() => sealer.seal(about, REGION))

const sealedGrant: Target = {
  name: "sealed grant",
  seeds: () => sealedSeeds,
  run: (input) => {
    const opened = encodeGrant(grantOpener.open(about, input))
    const isOurs = sealedSeeds.some((seed) => equalBytes(seed, input))
    promise(isOurs && equalBytes(opened, encodeGrant(REGION)), "what nobody sealed was opened")
    return "opened"
  },
}

/** 32 bytes of cursors and marks, then the ring: all that a writer of the memory decides. */
const RING_WORDS = [0, 32, 64, 96, 128].map((word) => 64 + word)
const CURSOR_BYTES = 4 * RING_WORDS.length

function memoryOf(input: Uint8Array) {
  const { lengthBytes, header } = regionLayout(MIN_RING_BYTES)
  const memory = new Uint8Array(lengthBytes)
  memory.set(header)
  memory.set(input.subarray(CURSOR_BYTES, CURSOR_BYTES + MIN_RING_BYTES), HEADER_PAGE_BYTES)
  const region = regionOf(memory, MIN_RING_BYTES)
  const view = new DataView(concat(input.subarray(0, CURSOR_BYTES), new Uint8Array(CURSOR_BYTES)).buffer)
  RING_WORDS.forEach((word, index) => {
    region.control[word] = view.getInt32(4 * index, true)
  })
  return region
}

/** A ring as a producer left it, as the bytes of {@link memoryOf}. */
function ringInput(random: Random, fill: (memory: ReturnType<typeof memoryOf>) => void): Uint8Array {
  const region = memoryOf(new Uint8Array(0))
  fill(region)
  const cursors = new Int32Array(RING_WORDS.map((word) => region.control[word]!))
  const input = concat(new Uint8Array(cursors.buffer), region.aToB.bytes)
  if (random.once(2)) input.set(random.bytes(4), 4 * random.below(RING_WORDS.length))
  return input
}

const ring: Target = {
  name: "ring",
  taken: /^[1-8]/,
  generate: (random) =>
    ringInput(random, ({ aToB }) => {
      const producer = new RingProducer(aToB)
      for (let count = random.below(12); count > 0; count--) {
        const payload = random.bytes(random.length(600))
        const at = producer.claim(payload.length)
        if (at === NO_ROOM) break
        aToB.words[at >> 2] = random.once(8) ? random.u32() : payload.length
        aToB.words[(at >> 2) + 1] = random.once(8) ? random.pick([0xffff_ffff, 0, random.u32()]) : 2
        producer.commit()
      }
      producer.publish()
    }),
  run: (input) => {
    const { aToB } = memoryOf(input)
    const consumer = new RingConsumer(aToB)
    let records = 0
    for (let at = consumer.next(); at !== EMPTY; at = consumer.next()) {
      records += 1
      promise(records <= aToB.capacityUnits, "more records than the ring has units")
      promise(
        at >= 0 && at + UNIT_BYTES + consumer.payloadBytes <= aToB.bytes.length,
        "a record outside the ring",
      )
      consumer.release()
    }
    // The producer's side, over a head that the reader chose.
    const producer = new RingProducer(aToB)
    for (let round = 0; round < 8; round++) {
      const at = producer.claim(100)
      if (at === NO_ROOM) break
      promise(at >= 0 && at + UNIT_BYTES + 100 <= aToB.bytes.length, "room outside the ring")
      producer.commit()
      producer.publish()
    }
    return `${Math.min(records, 8)} records`
  },
}

const CONTENT = new Uint8Array(3000).map((_, index) => index * 7)

/** Sealed records in a ring, then changed: what comes out is a beginning of what was sealed, or nothing. */
function records(isolation: "arena" | "dedicated"): Target {
  return {
    name: `records-${isolation}`,
    taken: /^ended after some/,
    generate: (random) =>
      ringInput(random, ({ aToB }) => {
        const sealer = new Sealer(KEY, new RingSink(new RingProducer(aToB)))
        sealer.trySeal(KIND.HANDSHAKE, SIGNATURE)
        for (let at = 0; at < CONTENT.length;) {
          const piece = CONTENT.subarray(at, at + 1 + random.below(900))
          if (!sealer.trySeal(KIND.DATA, piece)) break
          at += piece.length
        }
        sealer.trySeal(KIND.EOF, new Uint8Array(0))
        sealer.flush()
      }),
    run: (input) => {
      const source = new RingSource(new RingConsumer(memoryOf(input).aToB), isolation)
      return drain(source)
    },
  }
}

function drain(source: RingSource | QueueSource): string {
  let verified = 0
  const opener = new Opener({
    key: KEY,
    source,
    verifyHandshake: (signature) => {
      verified += 1
      return equalBytes(signature, SIGNATURE)
    },
  })
  let bytes = 0
  for (let record = opener.tryOpen(); record !== null; record = opener.tryOpen()) {
    if (record.kind !== KIND.DATA) continue
    promise(verified === 1, "content before its sender proved who it is")
    const { length } = record.plaintext
    promise(
      equalBytes(record.plaintext, CONTENT.subarray(bytes, bytes + length)),
      "content that nobody sealed",
    )
    bytes += length
  }
  return `${opener.ended ? "ended" : "cut"} after ${bytes > 0 ? "some" : "nothing"}`
}

const RELAY_WINDOW_BYTES = 4096
/** Of a length: another part of the record follows. */
const MORE = 0x8000

/** Records of the relay, whole or in parts: u16 {@link MORE} and length, and bytes each. */
const relay: Target = {
  name: "records-relay",
  taken: /^ended after some/,
  generate: (random) => {
    const parts: Uint8Array[] = []
    const part = (bytes: Uint8Array, more: number) => {
      const length = bytes.length | more
      parts.push(Uint8Array.of(length >> 8, length & 0xff), bytes)
    }
    const put = (record: Uint8Array) => {
      const cut = random.once(4) ? random.below(record.length) : 0
      if (cut > 0) part(record.subarray(0, cut), MORE)
      part(record.subarray(cut), 0)
    }
    const waiting: Uint8Array[] = []
    const sealer = new Sealer(KEY, {
      maxPayloadBytes: 16384,
      room: (wanted) => wanted,
      claim: () => true,
      put: (head, payload) => {
        waiting.push(concat(new Uint8Array(head.buffer, head.byteOffset, 24).slice(), payload))
      },
      publish: () => {},
    })
    sealer.trySeal(KIND.HANDSHAKE, SIGNATURE)
    sealer.trySeal(KIND.DATA, CONTENT.subarray(0, random.below(500)))
    sealer.trySeal(KIND.EOF, new Uint8Array(0))
    for (const record of waiting) {
      put(record)
      if (random.once(12)) put(record)
      if (random.once(12)) put(random.bytes(random.below(60)))
    }
    return concat(...parts)
  },
  run: (input) => {
    const source = new QueueSource(RELAY_WINDOW_BYTES)
    for (let at = 0; at + 2 <= input.length;) {
      const head = (input[at]! << 8) | input[at + 1]!
      const length = head & ~MORE
      source.push(input.slice(at + 2, at + 2 + length), (head & MORE) !== 0)
      at += 2 + length
    }
    return drain(source)
  },
}

export const CHANNEL_TARGETS: readonly Target[] = [
  decision,
  grant,
  hpke,
  sealedGrant,
  ring,
  records("arena"),
  records("dedicated"),
  relay,
]
