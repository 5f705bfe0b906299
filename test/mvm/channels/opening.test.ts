import { describe, expect, test } from "bun:test"
import { Arena } from "../../../src/mvm/channels/arena.ts"
import { Broker } from "../../../src/mvm/broker.ts"
import { ChannelStore } from "../../../src/mvm/state/channel-store.ts"
import { ChannelTable } from "../../../src/mvm/channels/channel-table.ts"
import { ArenaMemory } from "../../../src/mvm/memory/channel-memory.ts"
import { regionBytes } from "../../../src/ring/layout.ts"
import { openBetween, refusal, until } from "../scripted-member.ts"
import { closeLater } from "../scratch-state.ts"
import { ScriptedMvm } from "../scripted.ts"

describe("an offer", () => {
  test("outlives an asker that goes no further than ALLOC", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b, c] = [await mvm.member("a"), await mvm.member("b"), await mvm.member("c")]
    await b.offer()
    await c.alloc("b")
    c.client.stop()
    await until(() => b.member.offers.size === 1)
    const { fields } = await a.alloc("b")
    const { opened } = await a.request(fields)
    await b.accept(await b.prove())
    await opened
  })

  test("outlives an asker whose software is not trusted", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    mvm.context.registry.reference.clearReference(a.member.record.uuid)
    const { opened } = await a.request((await a.alloc("b")).fields)
    expect((await refusal(opened)).code).toBe("no_reference")
    expect(b.member.offers.size).toBe(1)
    expect(b.heard).toEqual([])
  })

  test("that was withdrawn while an asker had it does not come back", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const offerId = await b.offer()
    await a.alloc("b")
    b.send("WITHDRAW", { offerId })
    await b.settled()
    a.client.stop()
    await until(() => mvm.context.channels.size === 0)
    expect(b.member.offers.size).toBe(0)
  })

  test("of an agent that is gone does not come back with the next agent", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    await a.alloc("b")
    await b.relink()
    a.client.stop()
    await until(() => mvm.context.channels.size === 0)
    expect(b.member.offers.size).toBe(0)
  })
})

describe("the answerer is challenged", () => {
  test("together with an asker that was found trusted before", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await openBetween(a, b)
    await b.offer()
    const { fields } = await a.alloc("b")
    const proven = await b.prove()
    const { opened } = await a.request(fields)
    await b.accept(proven)
    await opened
  })

  test("so, and hears when the asker does not prove itself after all", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await openBetween(a, b)
    await b.offer()
    const { fields } = await a.alloc("b")
    await b.prove()
    const { opened } = await a.request(fields, "another service than was asked for")
    expect((await refusal(opened)).code).toBe("signature")
    expect((await b.hear("ABORT")).fields.channelId).toEqual(fields.channelId)
    expect(b.heard.map(({ name }) => name)).not.toContain("GRANT")
  })

  test("so, and an asker hears of its failure as the answer to its REQUEST", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await openBetween(a, b)
    await b.offer()
    const { fields } = await a.alloc("b")
    const { requestId } = await b.hear("CHALLENGE")
    b.send("FAILED", { code: "no_receiver", message: "gone", hint: undefined }, requestId)
    await b.settled()
    const { opened } = await a.request(fields)
    expect((await refusal(opened)).code).toBe("no_receiver")
  })

  test("after an asker that never was", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    await a.alloc("b")
    await b.settled()
    expect(b.heard).toEqual([])
  })
})

describe("an opening", () => {
  test("ends when the answerer's agent is another one by the time it would be challenged", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { fields } = await a.alloc("b")
    await b.relink()
    await b.offer()
    const { opened } = await a.request(fields)
    expect((await refusal(opened)).code).toBe("aborted")
    expect(b.heard).toEqual([])
    expect(mvm.context.arena.freeBytes).toBe(mvm.context.arena.sizeBytes)
  })

  test("does not let the answerer's FAILED pass for the MVM's own finding", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    for (const code of ["untrusted", "denied", "revoked", "internal", "evidence_reset"]) {
      await b.offer()
      const { opened } = await a.request((await a.alloc("b")).fields)
      const { requestId } = await b.hear("CHALLENGE")
      b.send("FAILED", { code, message: "a: /usr/bin/a is not trusted", hint: undefined }, requestId)
      const refused = await refusal(opened)
      expect(refused.code).toBe("peer_failed")
      expect(refused.message).toStartWith("b could not answer: ")
    }
  })

  test("refuses evidence and signatures of another channel, epoch or key", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { fields } = await a.alloc("b")
    const other = { ...a.membership, epoch: new Uint8Array(16) }
    const honest = a.client.membership
    a.client.membership = other
    const { opened } = await a.request(fields)
    a.client.membership = honest
    expect((await refusal(opened)).code).toBe("signature")
    await b.settled()
    expect(b.heard).toEqual([])
  })
})

describe("a channel that is being opened", () => {
  async function granted() {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { opened } = await a.request((await a.alloc("b")).fields)
    const proven = await b.prove()
    await until(() => b.heard.some((message) => message.name === "GRANT"))
    const channel = mvm.context.channels.all()[0]!
    return { mvm, a, b, opened, proven, channel }
  }

  test("stays ended when the operator ends it meanwhile, and keeps its region until the answerer lets go", async () => {
    const { mvm, b, opened, proven, channel } = await granted()
    mvm.broker.end(channel, "revoked", "closed by the operator")
    const { id } = await b.accept(proven)
    const refused = await refusal(opened)
    expect(refused.message).toContain("operator")
    await b.hear("REVOKE")
    expect(channel.state).toBe("closed")
    expect(mvm.context.arena.freeBytes).toBeLessThan(mvm.context.arena.sizeBytes)
    b.send("CLOSE", { channelId: id })
    await b.settled()
    expect(mvm.context.arena.freeBytes).toBe(mvm.context.arena.sizeBytes)
  })

  test("does not open when an end was found untrusted meanwhile", async () => {
    for (const who of ["a", "b"] as const) {
      const { mvm, b, opened, proven, ...ends } = await granted()
      const liar = who === "a" ? ends.a : b
      const measured = mvm.watch.measure(liar.member)
      const { fields, requestId } = await liar.hear("MEASURE")
      const quote = liar.quote({ purpose: "periodic", nonce: fields.nonce, binding: new Uint8Array(32) })
      liar.send("MEASURED", { quote: { ...quote, signature: new Uint8Array(64) } }, requestId)
      expect((await refusal(measured)).code).toBe("evidence_quote_signature")
      await b.accept(proven)
      expect((await refusal(opened)).status).toBe(4)
      await b.hear("ABORT")
    }
  })

  test("does not open when the policy changed meanwhile", async () => {
    const { mvm, b, opened, proven, channel } = await granted()
    await Bun.write(mvm.context.policy.path, "")
    mvm.context.policy.reload()
    mvm.watch.policyChanged()
    await b.accept(proven)
    expect((await refusal(opened)).code).toBe("denied")
    expect(channel.state).toBe("closed")
  })
})

test("a member has no channel to itself: its ends could not be told apart", async () => {
  const mvm = await ScriptedMvm.start()
  const a = await mvm.member("a")
  await a.offer()
  expect((await refusal(a.alloc("a"))).code).toBe("denied")
  expect(mvm.context.channels.size).toBe(0)
})

describe("regions", () => {
  test("stay with an answerer that was granted one and lost its link, until it links again without it", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { opened } = await a.request((await a.alloc("b")).fields)
    await b.prove()
    await b.hear("GRANT")
    b.client.stop()
    expect((await refusal(opened)).code).toBe("unreachable")
    expect(mvm.context.arena.freeBytes).toBeLessThan(mvm.context.arena.sizeBytes)
    await b.link()
    await until(() => mvm.context.arena.freeBytes === mvm.context.arena.sizeBytes)
  })

  test("that one member holds are at most half of the arena, and others still find room", async () => {
    const mvm = await ScriptedMvm.start({ arenaBytes: 1 << 20 })
    const [a, b, c] = [await mvm.member("a"), await mvm.member("b"), await mvm.member("c")]
    const most = Math.ceil((1 << 19) / regionBytes(mvm.context.ringBytes))
    for (let count = 0; count < most; count += 1) {
      await b.offer()
      const { opened } = await a.request((await a.alloc("b")).fields)
      await b.prove()
      // Granted, never accepted, never closed.
      const { requestId } = await b.hear("GRANT")
      b.send("FAILED", { code: "refused", message: "no", hint: undefined }, requestId)
      await refusal(opened)
    }
    await b.offer()
    expect((await refusal(a.alloc("b"))).code).toBe("busy")
    await openBetween(a, c)
  })

  test("come back after a restart of the MVM when the VMs that held them are gone", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await openBetween(a, b)
    const arena = Arena.open(mvm.context.arena.path, mvm.context.arena.sizeBytes)
    const channels = new ChannelTable(new ChannelStore(mvm.context.registry.database), mvm.context.log)
    const reclaimed = channels.restore((stored) => {
      if (stored.kind !== "arena") throw new Error("not in the arena")
      return ArenaMemory.reserve(arena, stored.offset, stored.ringBytes)
    })
    expect(reclaimed).toBe(1)
    const broker = new Broker({ ...mvm.context, channels })
    closeLater(() => broker.stop())
    broker.releaseAbsent((uuid) => uuid === a.member.record.uuid)
    const [channel] = channels.all()
    expect(channel).toMatchObject({
      state: "closed",
      answerer: { released: true },
      asker: { released: false },
    })
    broker.releaseAbsent(() => false)
    expect(channels.size).toBe(0)
  })

  test("come back when the ends say CLOSE", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id } = await openBetween(a, b)
    a.send("CLOSE", { channelId: id })
    await a.settled()
    expect(mvm.context.channels.size).toBe(1)
    b.send("CLOSE", { channelId: id })
    await b.settled()
    expect(mvm.context.arena.freeBytes).toBe(mvm.context.arena.sizeBytes)
  })
})
