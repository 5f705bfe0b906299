/** A peer that says what no honest one does: the session ends, with nothing but the error for it. */

import { describe, expect, test } from "bun:test"
import { KIND } from "../../../src/channel/record.ts"
import { turn } from "../../../src/guest/channel-end.ts"
import { encodeFrame } from "../../../src/guest/streams/frames.ts"
import { MAX_STREAMS, Session } from "../../../src/guest/streams/session.ts"
import { utf8 } from "../../../src/lib/bytes.ts"
import { random } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { seeded } from "../../ring/fresh-region.ts"
import { echo, ended, endsOf, type TestEnd } from "./session-pair.ts"

const NONE = new Uint8Array(0)

describe("a peer that does not keep to it ends the session", () => {
  const open = encodeFrame("OPEN", { request: NONE })
  const end = encodeFrame("END", {})
  type Records = readonly (readonly [kind: 2 | 4, payload: Uint8Array, stream: number])[]
  const cases: Record<string, Records> = {
    "data of a stream that was never opened": [[KIND.DATA, utf8("x"), 5]],
    "data of the session's own stream": [[KIND.DATA, utf8("x"), 0]],
    "the end of a stream that was never opened": [[KIND.CONTROL, end, 5]],
    "a stream opened twice": [
      [KIND.CONTROL, open, 1],
      [KIND.CONTROL, open, 1],
    ],
    "stream 0": [[KIND.CONTROL, open, 0]],
    "data after the end": [
      [KIND.CONTROL, open, 1],
      [KIND.CONTROL, end, 1],
      [KIND.DATA, utf8("x"), 1],
    ],
    "an end said twice": [
      [KIND.CONTROL, open, 1],
      [KIND.CONTROL, end, 1],
      [KIND.CONTROL, end, 1],
    ],
    "data of no length": [
      [KIND.CONTROL, open, 1],
      [KIND.DATA, NONE, 1],
    ],
    "credit without measure": [
      [KIND.CONTROL, open, 1],
      [KIND.CONTROL, encodeFrame("CREDIT", { bytes: 2 ** 50 }), 1],
    ],
    "more data than credit": [
      [KIND.CONTROL, open, 1],
      ...Array.from({ length: 5 }, () => [KIND.DATA, new Uint8Array(60_000), 1] as const),
    ],
    "more streams than there may be": Array.from(
      { length: MAX_STREAMS + 1 },
      (_, index) => [KIND.CONTROL, open, index + 1] as const,
    ),
    "a frame that is none": [[KIND.CONTROL, utf8("?"), 1]],
    "no frame at all": [[KIND.CONTROL, NONE, 1]],
  }
  for (const [title, records] of Object.entries(cases)) {
    test(title, async () => {
      const { asker, answerer } = endsOf()
      const over = ended(new Session(answerer, { onStream: () => {} }))
      asker.sealer.trySeal(KIND.HANDSHAKE, asker.handshake)
      for (const [kind, payload, stream] of records) {
        expect(asker.sealer.trySeal(kind, payload, stream)).toBe(true)
        asker.flush()
      }
      expect(((await over) as MvmError).code).toBe("protocol")
    })
  }

  test("an answerer that leaves a stream of the session", async () => {
    const { asker, answerer } = endsOf()
    const over = ended(new Session(asker))
    answerer.sealer.trySeal(KIND.HANDSHAKE, answerer.handshake)
    answerer.sealer.trySeal(KIND.CONTROL, encodeFrame("LEAVE", {}), 1)
    answerer.flush()
    expect(((await over) as MvmError).code).toBe("protocol")
  })

  test("an answerer that opens a stream", async () => {
    const { asker, answerer } = endsOf()
    const over = ended(new Session(asker))
    answerer.sealer.trySeal(KIND.HANDSHAKE, answerer.handshake)
    answerer.sealer.trySeal(KIND.CONTROL, open, 1)
    answerer.flush()
    expect(((await over) as MvmError).code).toBe("protocol")
  })

  test("one that has streams answered and reads no answer", async () => {
    const { asker, answerer } = endsOf(2 ** 16)
    const over = ended(new Session(answerer))
    let isOver = false
    void over.then(() => (isOver = true))
    asker.sealer.trySeal(KIND.HANDSHAKE, asker.handshake)
    const reset = encodeFrame("RESET", { code: "aborted", message: "" })
    for (let number = 1; !isOver; number = (number % 65535) + 1) {
      for (const frame of [open, reset]) {
        while (!isOver && !asker.sealer.trySeal(KIND.CONTROL, frame, number)) await turn()
        asker.flush()
      }
    }
    expect(((await over) as MvmError).code).toBe("protocol")
  })

  test("random frames and data cause no other error", async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const { asker, answerer } = endsOf()
      const over = ended(new Session(answerer, { onStream: (stream) => void echo(stream) }))
      asker.sealer.trySeal(KIND.HANDSHAKE, asker.handshake)
      await sendRandomly(asker, seeded(seed * 7919))
      answerer.failure ??= new MvmError("aborted", "the test is over")
      expect(["protocol", "aborted", "record"]).toContain(((await over) as MvmError).code)
    }
  })
})

async function sendRandomly(asker: TestEnd, pick: (below: number) => number): Promise<void> {
  const frames = [
    encodeFrame("OPEN", { request: random(pick(50)) }),
    encodeFrame("CREDIT", { bytes: pick(100_000) }),
    encodeFrame("END", {}),
    encodeFrame("STOP", { code: "sink", message: "no" }),
    encodeFrame("RESET", { code: "aborted", message: "no" }),
  ]
  for (let step = 0; step < 200; step++) {
    const frame = frames[pick(3) === 0 ? 0 : pick(frames.length)]!.slice()
    if (pick(60) === 0) frame[pick(frame.length)] = pick(256)
    if (pick(2) === 0) asker.sealer.trySeal(KIND.CONTROL, frame, 1 + pick(6))
    else asker.sealer.trySeal(KIND.DATA, random(1 + pick(2000)), 1 + pick(6))
    asker.flush()
    if (pick(5) === 0) await turn()
  }
}
