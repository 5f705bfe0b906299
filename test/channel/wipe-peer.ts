/**
 * @module test/channel/wipe-peer
 *
 * A process that makes both ends of a direction from a key it is told on standard input, uses them, and wipes them; it
 * says "held" before that and "wiped" after, and waits for a line each time.
 */

import { readSync } from "node:fs"
import { KIND } from "../../src/channel/record.ts"
import { Opener } from "../../src/channel/opener.ts"
import { RingSink, RingSource } from "../../src/channel/ring-records.ts"
import { Sealer } from "../../src/channel/sealer.ts"
import { RingConsumer } from "../../src/ring/consumer.ts"
import { RingProducer } from "../../src/ring/producer.ts"
import { freshRegion } from "../ring/fresh-region.ts"

const line = new Uint8Array(1)

/** 32 bytes, each less one: the key itself is made here and was never read from anywhere. */
function told(): Uint8Array {
  const key = new Uint8Array(32)
  for (let at = 0; at < key.length; at++) {
    readSync(0, line)
    key[at] = line[0]! + 1
  }
  return key
}

function use(): { wipe(): void } {
  const key = told()
  const { region } = freshRegion(65536)
  const sealer = new Sealer(key, new RingSink(new RingProducer(region.aToB)))
  const source = new RingSource(new RingConsumer(region.aToB), "arena")
  const opener = new Opener({ key, source, verifyHandshake: () => true })
  key.fill(0)
  sealer.trySeal(KIND.HANDSHAKE, new Uint8Array(64))
  sealer.trySeal(KIND.DATA, new Uint8Array(1000))
  sealer.flush()
  while (opener.tryOpen() !== null);
  return {
    wipe: () => {
      sealer.wipe()
      opener.wipe()
    },
  }
}

const ends = use()
process.stdout.write("held\n")
readSync(0, line)
ends.wipe()
for (let round = 0; round < 5; round++) {
  Bun.gc(true)
  await Bun.sleep(20)
}
process.stdout.write("wiped\n")
readSync(0, line)
