import { describe, expect, test } from "bun:test"
import { parseDecision } from "../../../src/channel/decision.ts"
import { RELAY_WINDOW_BYTES } from "../../../src/channel/record-queue.ts"
import { random } from "../../../src/lib/crypto.ts"
import { openBetween, refusal, until, type HeldChannel, type ScriptedMember } from "../scripted-member.ts"
import { ScriptedMvm } from "../scripted.ts"

const RULE = `[[rule]]\nservice = "@any"\nfrom = "@any"\nto = "@any"\naction = "allow"\nmeasurement = "agent"\n`
const RECORD = new Uint8Array(60_000)

/** Two members, the first of which cannot map, and a channel between them. */
async function relayed(): Promise<{
  mvm: ScriptedMvm
  a: ScriptedMember
  b: ScriptedMember
  held: HeldChannel
}> {
  const mvm = await ScriptedMvm.start()
  const [a, b] = [await member(mvm, "a"), await mvm.member("b")]
  return { mvm, a, b, held: await openBetween(a, b) }
}

/** A member that cannot map shared memory. */
async function member(mvm: ScriptedMvm, name: string): Promise<ScriptedMember> {
  const made = await mvm.member(name)
  made.canMap = false
  await made.relink()
  return made
}

function record(channelId: Uint8Array, offset: number, bytes: Uint8Array = RECORD) {
  return { channelId, offset, record: bytes }
}

describe("a channel with an end that cannot map", () => {
  test("is relayed: the decision says so, and no region is made or granted", async () => {
    const { mvm, a, b, held } = await relayed()
    const channel = mvm.context.channels.all()[0]!
    expect([channel.transport, channel.memory]).toEqual(["relay", undefined])
    expect(mvm.context.arena.freeBytes).toBe(mvm.context.arena.sizeBytes)
    expect(held.grant).toMatchObject({ offset: 0, lengthBytes: 0, ringBytes: 0 })
    expect(held.grant.laddress).toHaveLength(16)
    expect(mvm.audited("grant")).toMatchObject([{ transport: "relay" }])
    // The answerer's end is no different when it is the one that cannot map.
    await b.offer()
    const { fields } = await a.alloc("b")
    const { opened } = await a.request(fields)
    await b.accept(await b.prove())
    const decision = parseDecision((await opened).fields.decision)
    expect([decision.transport, decision.isolation, decision.ringBytes]).toEqual(["relay", undefined, 0])
  })

  test("is refused with status 6 and the reason where the policy demands memory", async () => {
    const mvm = await ScriptedMvm.start({ policy: `${RULE}transport = "memory"\n` })
    const [a, b] = [await member(mvm, "a"), await mvm.member("b")]
    await b.offer()
    const refused = await refusal(a.alloc("b"))
    expect([refused.code, refused.status]).toEqual(["refused", 6])
    expect(refused.message).toBe("a cannot map shared memory, and the policy demands it")
    expect(mvm.context.channels.size).toBe(0)
  })

  test("passes records, credits and positions on word for word, to its other end alone", async () => {
    const { mvm, a, b, held } = await relayed()
    const c = await mvm.member("c")
    const sealed = random(1000)
    a.send("RECORD", record(held.id, 0, sealed))
    expect((await b.hear("RECORD")).fields).toEqual(record(held.id, 0, sealed))
    b.send("CREDIT", { channelId: held.id, taken: 1232 })
    expect((await a.hear("CREDIT")).fields).toEqual({ channelId: held.id, taken: 1232 })
    b.send("RESUME", { channelId: held.id, received: 5, taken: 4, answer: true })
    expect((await a.hear("RESUME")).fields).toEqual({
      channelId: held.id,
      received: 5,
      taken: 4,
      answer: true,
    })
    mvm.context.traffic.look(performance.now())
    const [channel] = mvm.context.channels.all()
    expect(mvm.context.traffic.of(channel!)).toMatchObject([{ bytes: 1000 }, { bytes: 0 }])
    c.send("RECORD", record(held.id, 0, sealed))
    c.send("CREDIT", { channelId: held.id, taken: 1 })
    c.send("RESUME", { channelId: held.id, received: 0, taken: 0, answer: false })
    await c.settled()
    await Promise.all([a.settled(), b.settled()])
    expect([a.heard, b.heard, c.heard]).toEqual([[], [], []])
    expect(c.member.link.counters.refused).toBe(3)
  })

  test("passes nothing on once it ended, and nothing at all when it has memory", async () => {
    const { mvm, a, b, held } = await relayed()
    mvm.broker.end(mvm.context.channels.all()[0]!, "revoked", "over")
    a.send("RECORD", record(held.id, 0))
    await a.settled()
    await b.hear("REVOKE")
    await b.settled()
    expect(b.heard).toEqual([])
    const c = await mvm.member("c")
    const other = await openBetween(b, c)
    b.send("RECORD", record(other.id, 0))
    await b.settled()
    await c.settled()
    expect(c.heard).toEqual([])
    expect(b.member.link.counters.refused).toBe(1)
  })

  test("outlives its links: what is said when the other end is not there is dropped, and no more than that", async () => {
    const { mvm, a, b, held } = await relayed()
    b.held = [{ channelId: held.id, transcript: held.transcript }]
    b.client.stop()
    await until(() => b.member.session === undefined)
    a.send("RECORD", record(held.id, 0))
    await a.settled()
    expect(b.member.bulk.heldBytes(held.id.toHex())).toBe(0)
    await b.link()
    b.send("RESUME", { channelId: held.id, received: 0, taken: 0, answer: false })
    await a.hear("RESUME")
    a.send("RECORD", record(held.id, 0))
    await b.hear("RECORD")
    expect(mvm.context.channels.all()[0]!.state).toBe("open")
  })
})

describe("an end that does not read", () => {
  /** As a socket that is full. */
  function stall(member: ScriptedMember): () => void {
    Object.defineProperty(member.member.socket, "backlogBytes", { value: 1 << 20, configurable: true })
    return () => Object.defineProperty(member.member.socket, "backlogBytes", { value: 0, configurable: true })
  }

  test("has twice the window held for it; a sender that goes on ends its channel with status 5, and no other", async () => {
    const { mvm, a, b, held } = await relayed()
    const c = await member(mvm, "c")
    const other = await openBetween(c, b)
    stall(b)
    const most = Math.floor((2 * RELAY_WINDOW_BYTES) / RECORD.length)
    for (let count = 0; count < most; count++) a.send("RECORD", record(held.id, count))
    c.send("RECORD", record(other.id, 0))
    await a.settled()
    await c.settled()
    expect(b.member.bulk.heldBytes(held.id.toHex())).toBe(most * RECORD.length)
    a.send("RECORD", record(held.id, most))
    const { fields } = await a.hear("ABORT")
    expect(fields).toMatchObject({
      code: "protocol",
      message: "a sent more records than the other end takes",
    })
    expect((await b.hear("ABORT")).fields.code).toBe("protocol")
    expect(b.member.bulk.heldBytes(held.id.toHex())).toBe(0)
    expect(b.member.bulk.heldBytes(other.id.toHex())).toBe(RECORD.length)
    expect(mvm.audited("abort")).toMatchObject([{ by: "a", code: "protocol" }])
  })

  test("makes no queue of credits and positions: only the newest waits", async () => {
    const { a, b, held } = await relayed()
    const resume = stall(b)
    for (let taken = 0; taken < 500; taken++) {
      a.send("CREDIT", { channelId: held.id, taken })
      a.send("RESUME", { channelId: held.id, received: 0, taken, answer: false })
    }
    await a.settled()
    await b.settled()
    expect(b.heard).toEqual([])
    resume()
    b.member.bulk.pump()
    expect((await b.hear("RESUME")).fields.taken).toBe(499)
    expect((await b.hear("CREDIT")).fields.taken).toBe(499)
    await b.settled()
    expect(b.heard).toEqual([])
  })

  test("hears at once what is no record, however many of those wait", async () => {
    const { mvm, a, b, held } = await relayed()
    stall(b)
    for (let count = 0; count < 8; count++) a.send("RECORD", record(held.id, count))
    await a.settled()
    mvm.broker.end(mvm.context.channels.all()[0]!, "revoked", "over")
    await b.hear("REVOKE")
    expect(b.heard).toEqual([])
  })
})

describe("relayed channels", () => {
  test("of one asker are bounded, and so are those with one member", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await member(mvm, "a"), await mvm.member("b")]
    for (let count = 0; count < 32; count++) await openBetween(a, b)
    await b.offer()
    const refused = await refusal(a.alloc("b"))
    expect([refused.code, refused.message]).toEqual(["busy", "a has as many relayed channels as it may"])
    const c = await mvm.member("c")
    await openBetween(c, a)
  })

  test("end when the policy comes to demand memory", async () => {
    const { mvm, a, b } = await relayed()
    await Bun.write(`${mvm.folder}/policy.toml`, `${RULE}transport = "memory"\n`)
    mvm.context.policy.reload()
    mvm.watch.policyChanged()
    expect((await a.hear("REVOKE")).fields.message).toContain("policy")
    await b.hear("REVOKE")
  })
})
