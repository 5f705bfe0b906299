/**
 * @module test/guest/carriers/relay-carrier
 *
 * Two ends with the real record layer over two carriers, and between them a wire that does what the test wants: what
 * a link that begins anew does, and what a hostile agent or MVM could do.
 */

import { describe, expect, test } from "bun:test"
import { RELAY_WINDOW_BYTES } from "../../../src/channel/record-queue.ts"
import { KIND } from "../../../src/channel/record.ts"
import { Sealer } from "../../../src/channel/sealer.ts"
import { random } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { seeded } from "../../ring/fresh-region.ts"
import { CHANNEL_ID, SIGNATURE, carry, drain, fill, pair, type Sent } from "./relay-ends.ts"

function codeOf(error: unknown): string {
  return error instanceof MvmError ? error.code : error === undefined ? "none" : `not ours: ${String(error)}`
}

describe("a relayed channel", () => {
  test("keeps each end within its window, and goes on as records are taken", () => {
    const { asker, answerer, sealer, opener } = pair()
    let [sent, seen] = [0, 0]
    for (let round = 0; round < 20; round++) {
      sent = fill(sealer, sent, 10_000)
      const held = asker.outgoing.reduce((sum, { fields }) => {
        return sum + ("record" in fields ? fields.record.length : 0)
      }, 0)
      expect(held).toBeLessThanOrEqual(RELAY_WINDOW_BYTES)
      carry(asker, answerer)
      // The command is given a part at a time, and more as it takes that.
      const parts: number[] = []
      for (let before = -1; before < seen;) {
        before = seen
        seen = drain(opener, seen)
        parts.push(seen - before)
        answerer.credit()
      }
      expect(Math.max(...parts)).toBeLessThan(20)
      expect(seen).toBe(sent)
      carry(answerer, asker)
    }
    expect(sent).toBeGreaterThan(20 * 20)
    expect([asker.failure, answerer.failure]).toEqual([undefined, undefined])
  })

  test("lets the answerer begin only when the asker's agent is there for it", () => {
    const { asker, answerer } = pair()
    const sealer = new Sealer(random(32), answerer.sink)
    sealer.trySeal(KIND.HANDSHAKE, SIGNATURE)
    sealer.flush()
    expect(answerer.outgoing).toEqual([])
    carry(asker, answerer)
    expect(answerer.outgoing.map(({ name }) => name)).toEqual(["RECORD"])
    carry(answerer, asker)
    expect(asker.source.ready).toBe(true)
  })

  test("loses nothing when either link begins anew, at any moment, again and again", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const pick = seeded(seed)
      const { asker, answerer, sealer, opener } = pair()
      let [sent, seen] = [0, 0]
      for (let step = 0; step < 300; step++) {
        switch (pick(6)) {
          case 0:
            sent = fill(sealer, sent, 20_000 + pick(5000))
            break
          case 1:
            carry(asker, answerer, 1 + pick(6))
            break
          case 2:
            carry(answerer, asker, 1 + pick(3))
            break
          case 3:
            seen = drain(opener, seen)
            break
          case 4:
            answerer.credit()
            break
          default: {
            if (pick(4) > 0) break
            // Everything on its way through the MVM is lost, and one or both of the links are made again.
            asker.outgoing.length = 0
            answerer.outgoing.length = 0
            const which = pick(3)
            if (which !== 1) asker.carrier.relinked()
            if (which !== 0) answerer.carrier.relinked()
          }
        }
      }
      for (let round = 0; round < 10; round++) {
        carry(asker, answerer)
        seen = drain(opener, seen)
        answerer.credit()
        carry(answerer, asker)
      }
      expect([codeOf(asker.failure), codeOf(answerer.failure)]).toEqual(["none", "none"])
      expect(seen).toBe(sent)
      expect(sent).toBeGreaterThan(0)
    }
  })
})

describe("whoever stands between the ends", () => {
  test("by dropping, doubling, swapping, changing or making up frames gets no wrong byte released", () => {
    let refused = 0
    for (let seed = 1; seed <= 200; seed++) {
      const pick = seeded(seed)
      const { asker, answerer, sealer, opener } = pair()
      let [sent, seen] = [0, 0]
      let failure: unknown
      try {
        for (let step = 0; step < 40 && !failure; step++) {
          sent = fill(sealer, sent, 1 + pick(30_000))
          tamper(asker.outgoing, pick)
          carry(asker, answerer)
          seen = drain(opener, seen)
          answerer.credit()
          carry(answerer, asker)
          failure = asker.failure ?? answerer.failure
        }
      } catch (error) {
        failure = error
      }
      expect(["none", "record", "protocol", "signature"]).toContain(codeOf(failure))
      expect(seen).toBeLessThanOrEqual(sent)
      if (failure) refused += 1
    }
    expect(refused).toBeGreaterThan(50)
  })

  test("who leaves one out with its place ends the channel with status 5: the numbers no longer fit", () => {
    const { asker, answerer, sealer, opener } = pair()
    fill(sealer, 0, 50_000)
    const records = asker.outgoing.filter((message) => message.name === "RECORD")
    const [first, missing, ...rest] = records
    const shift = rest[0]!.fields.offset - missing!.fields.offset
    answerer.carrier.fromPeer(first!)
    for (const { fields } of rest) {
      const moved = { ...fields, offset: fields.offset - shift }
      answerer.carrier.fromPeer({ name: "RECORD", requestId: 0, fields: moved })
    }
    expect(opener.tryOpen()!.kind).toBe(KIND.HANDSHAKE)
    let failure: unknown
    try {
      while (opener.tryOpen() !== null);
    } catch (error) {
      failure = error
    }
    expect(failure).toMatchObject({ code: "record", status: 5 })
  })

  test("who sends beyond the window, takes or received more than was sent is refused", () => {
    const record = new Uint8Array(24 + 60_000)
    new DataView(record.buffer).setUint32(0, 60_000, true)
    const flooded = pair().answerer
    for (let count = 0, offset = 0; count < 20; count++, offset += record.length + 232) {
      flooded.carrier.fromPeer({
        name: "RECORD",
        requestId: 0,
        fields: { channelId: CHANNEL_ID, offset, record },
      })
    }
    expect(codeOf(flooded.failure)).toBe("protocol")
    const taken = pair().asker
    taken.carrier.fromPeer({ name: "CREDIT", requestId: 0, fields: { channelId: CHANNEL_ID, taken: 1 } })
    expect(codeOf(taken.failure)).toBe("protocol")
    const resumed = pair().asker
    const fields = { channelId: CHANNEL_ID, received: 1, taken: 0, answer: true }
    resumed.carrier.fromPeer({ name: "RESUME", requestId: 0, fields })
    expect(codeOf(resumed.failure)).toBe("protocol")
  })
})

describe("a command", () => {
  test("that sends beyond its window, or takes what it was not given, is refused", () => {
    const { carrier } = pair().asker
    const record = new Uint8Array(24 + 60_000)
    new DataView(record.buffer).setUint32(0, 60_000, true)
    let sent = 0
    expect(() => {
      for (; sent < 100; sent++) carrier.fromCommand(record)
    }).toThrow("more than the window holds")
    expect(sent).toBe(Math.floor(RELAY_WINDOW_BYTES / (record.length + 232)))
    expect(() => carrier.takenByCommand(1)).toThrow("not what was given")
    expect(() => carrier.fromCommand(new Uint8Array(23))).toThrow("23 bytes")
  })
})

/** One seeded change of what is on its way. */
function tamper(messages: Sent[], pick: (below: number) => number): void {
  const at = pick(Math.max(1, messages.length))
  const message = messages[at]
  if (!message) return
  switch (pick(7)) {
    case 0:
      messages.splice(at, 1)
      break
    case 1:
      messages.splice(pick(messages.length), 0, message)
      break
    case 2:
      messages.reverse()
      break
    case 3:
      if (message.name === "RECORD") {
        const { record } = message.fields
        const index = pick(record.length)
        record[index] = record[index]! ^ (1 + pick(255))
      }
      break
    case 4: {
      const from = messages.find((other) => other.name === "RECORD")
      if (message.name === "RECORD" && from?.name === "RECORD") {
        messages[at] = { ...message, fields: { ...message.fields, record: from.fields.record } }
      }
      break
    }
    case 5:
      if (message.name === "RECORD") {
        messages[at] = { ...message, fields: { ...message.fields, offset: pick(1_000_000) } }
      }
      break
    default:
      break
  }
}
