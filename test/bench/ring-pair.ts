/**
 * @module bench/ring-pair
 *
 * A region in /dev/shm, its two ends in two processes, and the hot loop between them.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Isolation } from "../../src/channel/decision.ts"
import type { ChannelKeys } from "../../src/channel/keys.ts"
import { Opener } from "../../src/channel/opener.ts"
import { KIND } from "../../src/channel/record.ts"
import { RingSink, RingSource } from "../../src/channel/ring-records.ts"
import { Sealer } from "../../src/channel/sealer.ts"
import { mapShared } from "../../src/platform/mmap.ts"
import { RingConsumer } from "../../src/ring/consumer.ts"
import { regionLayout, regionOf, type Region } from "../../src/ring/layout.ts"
import { RingProducer } from "../../src/ring/producer.ts"

/** Keys of no secret: both processes of the benchmark know them. */
export const KEYS: ChannelKeys = {
  askerToAnswerer: new Uint8Array(32).fill(1),
  answererToAsker: new Uint8Array(32).fill(2),
}

export interface PairOptions {
  readonly ringBytes: number
  readonly recordBytes: number
  readonly isolation: Isolation
  readonly task: "drain" | "echo"
}

export interface Pair extends Disposable {
  readonly sealer: Sealer
  readonly opener: Opener
}

export function mapRegion(path: string, ringBytes: number): Region {
  const { lengthBytes } = regionLayout(ringBytes)
  return regionOf(mapShared(path, { offsetBytes: 0, lengthBytes }).bytes, ringBytes)
}

/** Starts the other process and waits until it is there. */
export function openPair({ ringBytes, recordBytes, isolation, task }: PairOptions): Pair {
  const directory = mkdtempSync("/dev/shm/mvm-bench-")
  const path = join(directory, "region")
  const { lengthBytes, header } = regionLayout(ringBytes)
  const memory = new Uint8Array(lengthBytes)
  memory.set(header)
  writeFileSync(path, memory)
  const region = mapRegion(path, ringBytes)
  const peer = Bun.spawn(
    [process.execPath, join(import.meta.dir, "ring-peer.ts"), path, String(ringBytes), isolation, task],
    { stdin: "ignore", stdout: "inherit", stderr: "inherit" },
  )
  const sealer = new Sealer(
    KEYS.askerToAnswerer,
    new RingSink(new RingProducer(region.aToB), recordBytes - 64),
  )
  const opener = new Opener({
    key: KEYS.answererToAsker,
    source: new RingSource(new RingConsumer(region.bToA), isolation),
    verifyHandshake: () => true,
  })
  sealer.trySeal(KIND.HANDSHAKE, new Uint8Array(64))
  sealer.flush()
  while (opener.tryOpen() === null) {
    if (peer.exitCode !== null) throw new Error("the other process ended")
    Bun.sleepSync(1)
  }
  return {
    sealer,
    opener,
    [Symbol.dispose]() {
      peer.kill()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Seals all of `lengthBytes` from `source`, over and over; returns when the other end has opened it: GB/s. */
export function pump(pair: Pair, source: Uint8Array, lengthBytes: number): number {
  const { sealer } = pair
  // The other end may nap: it is awake before the clock starts.
  endOfRound(pair)
  const start = Bun.nanoseconds()
  let at = 0
  for (let left = lengthBytes; left > 0;) {
    const take = sealer.room(Math.min(left, source.length - at))
    if (take < 0) {
      Atomics.pause()
      continue
    }
    sealer.trySeal(KIND.DATA, source.subarray(at, at + take))
    sealer.flush()
    left -= take
    at = (at + take) % source.length
  }
  endOfRound(pair)
  return lengthBytes / (Bun.nanoseconds() - start)
}

/** Returns when the other end has opened everything sent so far. */
function endOfRound({ sealer, opener }: Pair): void {
  while (!sealer.trySeal(KIND.DATA, new Uint8Array(1))) Atomics.pause()
  sealer.flush()
  while (opener.tryOpen() === null) Atomics.pause()
}

/** Spins while traffic is hot, naps between rounds: the ends of other pairs, which wait, cost the measured one nothing. */
export function spinThenNap(): { idle(): void; busy(): void } {
  let idleRounds = 0
  return {
    idle() {
      if (++idleRounds < 100_000) Atomics.pause()
      else Bun.sleepSync(20)
    },
    busy() {
      idleRounds = 0
    },
  }
}
