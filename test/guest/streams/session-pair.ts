/**
 * @module test/guest/streams/session-pair
 *
 * Two sessions at the two ends of one region in this process: real rings, real records, no agent. Whoever rests
 * looks again with every turn of the event loop.
 */

import { Opener } from "../../../src/channel/opener.ts"
import { RingSink, RingSource } from "../../../src/channel/ring-records.ts"
import { Sealer } from "../../../src/channel/sealer.ts"
import { turn } from "../../../src/guest/channel-end.ts"
import { Session, type SessionChannel, type SessionOptions } from "../../../src/guest/streams/session.ts"
import type { Stream } from "../../../src/guest/streams/stream.ts"
import { random } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { RingConsumer } from "../../../src/ring/consumer.ts"
import type { RingMemory } from "../../../src/ring/layout.ts"
import { RingProducer } from "../../../src/ring/producer.ts"
import { freshRegion } from "../../ring/fresh-region.ts"

/** One end without a session on it, for a peer that does what it likes. */
export interface TestEnd extends SessionChannel {
  /** Set: the channel may not go on. */
  failure: MvmError | undefined
  /** Plaintext allowed in each direction */
  maxBytes: number
}

export interface SessionPair {
  readonly asker: Session
  readonly answerer: Session
  readonly ends: { readonly asker: TestEnd; readonly answerer: TestEnd }
  /** Both runs; each settles with undefined or what it threw. */
  readonly over: Promise<[unknown, unknown]>
}

/** @param ringBytes of each direction */
export function endsOf(ringBytes = 2 ** 20): { asker: TestEnd; answerer: TestEnd } {
  const { region } = freshRegion(ringBytes)
  const keys = [random(32), random(32)] as const
  return {
    asker: end("asker", { sends: region.aToB, reads: region.bToA, sealKey: keys[0], openKey: keys[1] }),
    answerer: end("answerer", { sends: region.bToA, reads: region.aToB, sealKey: keys[1], openKey: keys[0] }),
  }
}

export function sessionPair(
  options: { ringBytes?: number; onStream?: SessionOptions["onStream"]; hashed?: boolean } = {},
): SessionPair {
  const ends = endsOf(options.ringBytes)
  const hashed = options.hashed ?? false
  const asker = new Session(ends.asker, { hashed })
  const answerer = new Session(ends.answerer, {
    hashed,
    ...(options.onStream ? { onStream: options.onStream } : {}),
  })
  return { asker, answerer, ends, over: Promise.all([ended(asker), ended(answerer)]) }
}

/** What a run threw; undefined for one that came to its end. */
export function ended(session: Session): Promise<unknown> {
  return session.run().then(
    () => undefined,
    (error: unknown) => error,
  )
}

/** Sends back what comes, as long as that goes. */
export async function echo(stream: Stream): Promise<void> {
  try {
    for (;;) {
      const bytes = await stream.read()
      if (bytes === null) return await stream.end()
      await stream.write(bytes)
    }
  } catch (error) {
    if (!(error instanceof MvmError)) throw error
  }
}

function end(
  side: "asker" | "answerer",
  way: { sends: RingMemory; reads: RingMemory; sealKey: Uint8Array; openKey: Uint8Array },
): TestEnd {
  const producer = new RingProducer(way.sends)
  const consumer = new RingConsumer(way.reads)
  const made: TestEnd = {
    side,
    failure: undefined,
    maxBytes: Infinity,
    handshake: new Uint8Array(64).fill(7),
    sealer: new Sealer(way.sealKey, new RingSink(producer)),
    opener: new Opener({
      key: way.openKey,
      source: new RingSource(consumer, "arena"),
      verifyHandshake: () => true,
      hasStreams: true,
    }),
    check() {
      if (made.failure) throw made.failure
    },
    checkLength(lengthBytes) {
      if (lengthBytes > made.maxBytes) throw new MvmError("denied", "too long")
    },
    flush: () => made.sealer.flush(),
    acknowledge: () => consumer.publish(),
    async rest(roomBytes, interrupted) {
      consumer.publish()
      for (let look = 0; look < 64; look++) {
        if (interrupted() || consumer.ready || (roomBytes !== undefined && producer.hasRoom(roomBytes)))
          return
        await turn()
      }
    },
    nudge: () => {},
  }
  return made
}
