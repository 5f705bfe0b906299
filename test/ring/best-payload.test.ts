import { expect, test } from "bun:test"
import { RingProducer, NO_ROOM } from "../../src/ring/producer.ts"
import { freshRegion } from "./fresh-region.ts"

const RING_BYTES = 8192
const UNITS = RING_BYTES / 64

test("from every place in an empty ring the best payload carries bytes on and can be claimed", () => {
  for (let start = 0; start < UNITS; start += 1) {
    const ring = freshRegion(RING_BYTES).region.aToB
    Atomics.store(ring.control, ring.tailWord, start)
    Atomics.store(ring.control, ring.headWord, start)
    for (const wanted of [1, 63, 64, 65, 200, 1000, 3000, 100_000]) {
      const producer = new RingProducer(ring, start)
      const best = producer.bestPayloadBytes(wanted, RING_BYTES)
      expect(best).toBeGreaterThan(0)
      expect(producer.claim(best)).not.toBe(NO_ROOM)
    }
  }
})
