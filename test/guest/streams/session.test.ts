/** Streams over one channel: what arrives, in what order, who waits for whom, and how a session ends. */

import { describe, expect, test } from "bun:test"
import { turn } from "../../../src/guest/channel-end.ts"
import { FIRST_WINDOW_BYTES } from "../../../src/guest/streams/receive-window.ts"
import { MAX_STREAMS, type Session } from "../../../src/guest/streams/session.ts"
import type { Stream } from "../../../src/guest/streams/stream.ts"
import { concat, fromUtf8, toHex, utf8 } from "../../../src/lib/bytes.ts"
import { random, sha256 } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { seeded } from "../../ring/fresh-region.ts"
import { echo, sessionPair } from "./session-pair.ts"

const NONE = new Uint8Array(0)

/** Everything a stream still brings. */
async function rest(stream: Stream): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  for (;;) {
    const piece = await stream.read()
    if (piece === null) return concat(...pieces)
    pieces.push(piece.slice())
  }
}

function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "none",
    (error: unknown) => (error instanceof MvmError ? error.code : String(error)),
  )
}

/** Turns of the event loop, until `ready`. */
async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await turn()
}

describe("a stream", () => {
  test("carries its request and both directions, each with its own end", async () => {
    const requests: string[] = []
    const pair = sessionPair({
      onStream: (stream, request) => {
        requests.push(fromUtf8(request))
        void echo(stream)
      },
    })
    const stream = pair.asker.open(utf8("hello"))
    await stream.write(utf8("first "))
    await stream.write(utf8("second"))
    await stream.end()
    expect(fromUtf8(await rest(stream))).toBe("first second")
    expect(await stream.read()).toBeNull()
    expect(requests).toEqual(["hello"])
    await until(() => pair.asker.streams + pair.answerer.streams === 0)
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
  })

  test("keeps the other direction when one has ended", async () => {
    const pair = sessionPair({
      onStream: (stream) => {
        void (async () => {
          const asked = await rest(stream)
          for (let part = 0; part < 3; part++) await stream.write(concat(asked, new Uint8Array([part])))
          await stream.end()
        })()
      },
    })
    const stream = pair.asker.open(NONE)
    await stream.write(utf8("?"))
    await stream.end()
    expect([...(await rest(stream))]).toEqual([63, 0, 63, 1, 63, 2])
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
  })

  for (const ringBytes of [4096, 2 ** 16, 2 ** 22]) {
    test(`carries writes of every length both ways at once over rings of ${ringBytes} bytes`, async () => {
      const pair = sessionPair({ ringBytes, hashed: true, onStream: (stream) => void echo(stream) })
      const pick = seeded(ringBytes)
      const pieces = Array.from({ length: 200 }, () => random(pick(4) === 0 ? pick(40_000) : pick(200)))
      const stream = pair.asker.open(NONE)
      const back = rest(stream)
      for (const piece of pieces) await stream.write(piece)
      await stream.end()
      expect(toHex(sha256(await back))).toBe(toHex(sha256(concat(...pieces))))
      pair.asker.finish()
      expect(await pair.over).toEqual([undefined, undefined])
      const said = (session: Session) => session.content!
      expect(toHex(said(pair.asker).sent.digest())).toBe(toHex(said(pair.answerer).received.digest()))
      expect(toHex(said(pair.answerer).sent.digest())).toBe(toHex(said(pair.asker).received.digest()))
    })
  }

  test("does not hold the writer's buffer once a write has resolved", async () => {
    const pair = sessionPair({ onStream: (stream) => void echo(stream) })
    const stream = pair.asker.open(NONE)
    const buffer = new Uint8Array(1000)
    for (let round = 1; round <= 50; round++) await stream.write(buffer.fill(round))
    buffer.fill(0)
    await stream.end()
    const all = await rest(stream)
    expect(all.length).toBe(50_000)
    for (let round = 1; round <= 50; round++) expect(all[round * 1000 - 1]).toBe(round)
    pair.asker.finish()
    await pair.over
  })
})

describe("many streams", () => {
  test("run at once, each in its own order", async () => {
    const pair = sessionPair({ onStream: (stream) => void echo(stream) })
    const pick = seeded(5)
    const all = Array.from({ length: 64 }, async () => {
      const stream = pair.asker.open(NONE)
      const content = random(1 + pick(300_000))
      const back = rest(stream)
      for (let at = 0; at < content.length;) {
        const take = 1 + pick(50_000)
        await stream.write(content.subarray(at, at + take))
        at += take
      }
      await stream.end()
      expect(toHex(sha256(await back))).toBe(toHex(sha256(content)))
    })
    await Promise.all(all)
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
    expect(pair.answerer.streams).toBe(0)
  })

  test("go on when the reader of one stalls, which holds no more than its window", async () => {
    const streams: Stream[] = []
    const pair = sessionPair({
      ringBytes: 2 ** 16,
      onStream: (stream) => {
        if (streams.push(stream) > 1) void echo(stream)
      },
    })
    const stalled = pair.asker.open(NONE)
    const endless = new Uint8Array(1_000_000).fill(1)
    const stuck = stalled.write(endless)
    const other = pair.asker.open(NONE)
    const back = rest(other)
    for (let round = 0; round < 100; round++) await other.write(new Uint8Array(10_000).fill(round))
    await other.end()
    expect((await back).length).toBe(1_000_000)
    // The stalled one goes on where it was.
    const read = rest(streams[0]!)
    await stuck
    await stalled.end()
    expect(toHex(sha256(await read))).toBe(toHex(sha256(endless)))
    await streams[0]!.end()
    await rest(stalled)
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
  })

  test("take turns: none waits for all of another's data", async () => {
    const order: number[] = []
    const pair = sessionPair({
      ringBytes: 2 ** 16,
      onStream: (stream, request) => {
        void (async () => {
          while ((await stream.read()) !== null) order.push(request[0]!)
          await stream.end()
        })()
      },
    })
    const streams = [1, 2, 3].map((name) => pair.asker.open(new Uint8Array([name])))
    await Promise.all(
      streams.map(async (stream) => {
        await stream.write(new Uint8Array(FIRST_WINDOW_BYTES))
        await stream.end()
        await rest(stream)
      }),
    )
    // In the first third of what came, all three have a part.
    expect(new Set(order.slice(0, Math.ceil(order.length / 3)))).toEqual(new Set([1, 2, 3]))
    pair.asker.finish()
    await pair.over
  })

  test("are bounded, and a number is free again after both ends are done with it", async () => {
    const pair = sessionPair({ onStream: (stream) => void echo(stream) })
    const open = Array.from({ length: MAX_STREAMS }, () => pair.asker.open(NONE))
    expect(() => pair.asker.open(NONE)).toThrow(`more than ${MAX_STREAMS} streams`)
    await Promise.all(
      open.map(async (stream) => {
        await stream.end()
        expect(await stream.read()).toBeNull()
      }),
    )
    for (let round = 0; round < 1000; round++) {
      const stream = pair.asker.open(NONE)
      await stream.end()
      expect(await stream.read()).toBeNull()
    }
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
  })
})

describe("breaking off", () => {
  test("a reset fails both ends of the stream with its reason, and no other stream", async () => {
    const served: Stream[] = []
    const pair = sessionPair({ onStream: (stream) => void served.push(stream) })
    const [broken, other] = [pair.asker.open(NONE), pair.asker.open(NONE)]
    await until(() => served.length === 2)
    const waiting = codeOf(served[0]!.read())
    broken!.reset(new MvmError("not_found", "gone"))
    broken!.reset(new MvmError("busy", "said again"))
    expect(await waiting).toBe("not_found")
    expect(await codeOf(served[0]!.write(utf8("x")))).toBe("not_found")
    expect(await codeOf(broken!.read())).toBe("not_found")
    void echo(served[1]!)
    await other!.write(utf8("alive"))
    await other!.end()
    expect(fromUtf8(await rest(other!))).toBe("alive")
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
  })

  test("a reader that stops fails the writer alone, and what it says itself still arrives", async () => {
    const pair = sessionPair({
      onStream: (stream) => {
        void (async () => {
          await stream.read()
          stream.stop(new MvmError("sink", "enough"))
          await stream.write(utf8("thanks"))
          await stream.end()
        })()
      },
    })
    const stream = pair.asker.open(NONE)
    const endless = async (): Promise<void> => {
      for (;;) await stream.write(new Uint8Array(100_000))
    }
    const writing = codeOf(endless())
    expect(fromUtf8(await rest(stream))).toBe("thanks")
    expect(await writing).toBe("sink")
    await until(() => pair.asker.streams + pair.answerer.streams === 0)
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
  })

  test("a peer cannot say that this end's attestation failed or its channel was revoked", async () => {
    const pair = sessionPair({
      onStream: (stream) => stream.reset(new MvmError("revoked", "says the peer")),
    })
    expect(await codeOf(pair.asker.open(NONE).read())).toBe("peer_failed")
    pair.asker.finish()
    await pair.over
  })

  test("streams without a handler are refused", async () => {
    const pair = sessionPair()
    expect(await codeOf(pair.asker.open(NONE).read())).toBe("refused")
    pair.asker.finish()
    expect(await pair.over).toEqual([undefined, undefined])
  })

  test("an answerer that leaves serves what there is, and the session ends with it", async () => {
    const pair = sessionPair({ onStream: (stream) => void echo(stream) })
    const stream = pair.asker.open(NONE)
    await stream.write(utf8("x"))
    await stream.read()
    pair.answerer.finish()
    // Not heard yet: what is opened now is served too.
    const crossing = pair.asker.open(NONE)
    await until(() => !pair.asker.isOpen)
    expect(() => pair.asker.open(NONE)).toThrow("the session is ending")
    for (const one of [stream, crossing]) {
      await one.write(utf8("still"))
      await one.end()
      expect(fromUtf8(await rest(one))).toBe("still")
    }
    expect(await pair.over).toEqual([undefined, undefined])
  })

  test("an answerer that stops breaks its streams off, and the session still ends in order", async () => {
    const pair = sessionPair({ onStream: (stream) => void echo(stream) })
    const stream = pair.asker.open(NONE)
    await stream.write(utf8("x"))
    await stream.read()
    pair.answerer.resetAll(new MvmError("aborted", "the service stopped"))
    pair.answerer.finish()
    expect(await codeOf(stream.read())).toBe("aborted")
    expect(await pair.over).toEqual([undefined, undefined])
  })

  test("a channel that may not go on ends all its streams, and releases nothing that was held", async () => {
    const served: Stream[] = []
    const pair = sessionPair({ onStream: (stream) => void served.push(stream) })
    const stream = pair.asker.open(NONE)
    await stream.write(utf8("held"))
    await until(() => served.length === 1)
    await turn()
    for (const end of Object.values(pair.ends)) end.failure = new MvmError("revoked", "the policy changed")
    const [first, second] = await pair.over
    expect([(first as MvmError).code, (second as MvmError).code]).toEqual(["revoked", "revoked"])
    expect(await codeOf(served[0]!.read())).toBe("revoked")
    expect(await codeOf(stream.write(utf8("more")))).toBe("revoked")
  })

  test("more bytes than the decision allows end the session at the sender", async () => {
    const pair = sessionPair({ onStream: (stream) => void echo(stream) })
    pair.ends.asker.maxBytes = 1000
    const stream = pair.asker.open(NONE)
    await stream.write(new Uint8Array(1000))
    expect(await codeOf(stream.write(new Uint8Array(1)))).toBe("denied")
    pair.answerer.fail(new MvmError("aborted", "the other end gave up"))
    expect(((await pair.over)[0] as MvmError).code).toBe("denied")
  })

  test("more bytes than the decision allows end the session at the receiver", async () => {
    const pair = sessionPair({ onStream: (stream) => void echo(stream) })
    pair.ends.answerer.maxBytes = 1000
    const stream = pair.asker.open(NONE)
    await stream.write(new Uint8Array(1001))
    pair.ends.asker.failure = new MvmError("peer_failed", "gave up")
    expect(((await pair.over)[1] as MvmError).code).toBe("denied")
  })
})
