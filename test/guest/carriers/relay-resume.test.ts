import { describe, expect, test } from "bun:test"
import { Opener } from "../../../src/channel/opener.ts"
import { Sealer } from "../../../src/channel/sealer.ts"
import { random } from "../../../src/lib/crypto.ts"
import { CHANNEL_ID, End, HeldClock, carry, drain, fill } from "./relay-ends.ts"

describe("an end that asks again and again for what it was sent", () => {
  const RESUME = { channelId: CHANNEL_ID, received: 0, taken: 0, answer: false }

  function ask(end: End, times: number): void {
    for (let count = 0; count < times; count++) {
      end.carrier.fromPeer({ name: "RESUME", requestId: 0, fields: RESUME })
    }
  }

  function asked(end: End, times: number): number {
    ask(end, times)
    return end.outgoing.splice(0).filter(({ name }) => name === "RECORD").length
  }

  test("gets it a few times at once, and then once a second", () => {
    const clock = new HeldClock()
    const asker = new End(true, clock)
    fill(new Sealer(random(32), asker.sink), 0, 50_000)
    const records = asker.outgoing.splice(0).filter(({ name }) => name === "RECORD").length
    expect(records).toBeGreaterThan(4)
    expect(asked(asker, 1000)).toBe(4 * records)
    expect([asked(asker, 1000), clock.waiting]).toEqual([0, 1])
    clock.pass(999)
    expect(asked(asker, 1000)).toBe(0)
    clock.pass(1)
    expect(asked(asker, 1000)).toBe(records)
    asker.carrier.close()
    expect(clock.waiting).toBe(0)
  })

  test("loses nothing by it: what was sent meanwhile comes in its turn", () => {
    const clock = new HeldClock()
    const [asker, answerer] = [new End(true, clock), new End(false)]
    const key = random(32)
    const sealer = new Sealer(key, asker.sink)
    const opener = new Opener({ key, source: answerer.source, verifyHandshake: () => true })
    let sent = fill(sealer, 0, 40_000)
    ask(asker, 5)
    carry(asker, answerer)
    let seen = 0
    while (seen < sent) {
      seen = drain(opener, seen)
      answerer.credit()
    }
    carry(answerer, asker)
    sent = fill(sealer, sent, 40_000)
    expect(asker.outgoing.filter(({ name }) => name === "RECORD")).toEqual([])
    clock.pass(1000)
    for (let round = 0; round < 20; round++) {
      carry(asker, answerer)
      seen = drain(opener, seen)
      answerer.credit()
      carry(answerer, asker)
      if (round < 5) sent = fill(sealer, sent, 10_000)
    }
    expect([seen, asker.failure, answerer.failure]).toEqual([sent, undefined, undefined])
  })
})
