/**
 * The other process of the ring and latency benchmarks: opens what comes through ring A to B, and answers on ring
 * B to A: an empty record for a one-byte record (the end of a round), an echo for any other when asked to echo.
 *
 *     ring-peer.ts PATH RING_BYTES ISOLATION drain|echo
 */

import { Opener } from "../../src/channel/opener.ts"
import { KIND } from "../../src/channel/record.ts"
import { RingSink, RingSource } from "../../src/channel/ring-records.ts"
import { Sealer } from "../../src/channel/sealer.ts"
import { discardOutput } from "../../src/lib/crypto.ts"
import { RingConsumer } from "../../src/ring/consumer.ts"
import { RingProducer } from "../../src/ring/producer.ts"
import { KEYS, mapRegion, spinThenNap } from "./ring-pair.ts"

const [path, ringBytes, isolation, task] = process.argv.slice(2)
const region = mapRegion(path!, Number(ringBytes))
const opener = new Opener({
  key: KEYS.askerToAnswerer,
  source: new RingSource(new RingConsumer(region.aToB), isolation as "arena" | "dedicated"),
  verifyHandshake: () => true,
})
const sealer = new Sealer(KEYS.answererToAsker, new RingSink(new RingProducer(region.bToA)))
const reply = (kind: 1 | 2, plaintext: Uint8Array): void => {
  if (!sealer.trySeal(kind, plaintext)) throw new Error("no room for a reply")
  sealer.flush()
}
reply(KIND.HANDSHAKE, new Uint8Array(64))

const wait = spinThenNap()
const EMPTY = new Uint8Array(0)
for (;;) {
  const record = opener.tryOpen()
  if (record === null) {
    wait.idle()
    continue
  }
  wait.busy()
  if (record.kind === KIND.EOF) break
  if (record.kind !== KIND.DATA) continue
  if (task === "echo") reply(KIND.DATA, record.plaintext)
  else if (record.plaintext.length === 1) reply(KIND.DATA, EMPTY)
  else discardOutput(record.plaintext)
}
