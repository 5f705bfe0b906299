import { describe, expect, test } from "bun:test"
import { parseDecision } from "../../../src/channel/decision.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { openBetween, refusal, until } from "../scripted-member.ts"
import { ScriptedMvm } from "../scripted.ts"

const RULE =
  '[[rule]]\nservice = "@any"\nfrom = "@any"\nto = "@any"\naction = "allow"\nmeasurement = "agent"\n'

describe("memory of a channel's own that one end cannot be given", () => {
  /** As when the place in a VM is taken by another device. */
  async function withoutPlaces(policy: string) {
    const mvm = await ScriptedMvm.start({ policy })
    const { dedicated } = mvm.context
    const reserve = dedicated.reserve.bind(dedicated)
    dedicated.reserve = (...ends) => {
      const memory = reserve(...ends)
      memory.attach = () => Promise.reject(new MvmError("qemu", "device_add: the slot is in use"))
      return memory
    }
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { fields } = await a.alloc("b")
    const { opened, grant } = await a.request(fields)
    return { mvm, a, b, opened, allocated: grant, proven: await b.prove() }
  }

  test("becomes a region of the arena, and both ends hear so before either decides", async () => {
    const { mvm, a, b, opened, allocated, proven } = await withoutPlaces(RULE)
    const held = await b.accept(proven)
    const { fields } = await opened
    const decision = parseDecision(fields.decision)
    expect(decision.isolation).toBe("arena")
    expect(allocated.path).not.toBe("")
    const placed = await a.openGrant(fields.channelId, sha256(fields.decision), fields.sealed!)
    for (const grant of [placed, held.grant]) {
      const { path, offset, ringBytes } = grant
      expect({ path, offset, ringBytes }).toEqual({ path: "", offset: 0, ringBytes: decision.ringBytes })
    }
    expect(placed.laddress).toEqual(allocated.laddress)
    expect(mvm.context.dedicated.view).toMatchObject({ used: 0, usedBytes: 0 })
    expect(mvm.context.arena.freeBytes).toBeLessThan(mvm.context.arena.sizeBytes)
    const [channel] = mvm.context.channels.all()
    expect(channel?.memory?.stored.kind).toBe("arena")
  })

  test("is not made good by the arena where the rule demands it", async () => {
    const { mvm, b, opened } = await withoutPlaces(`${RULE}isolation = "dedicated"\n`)
    expect((await refusal(opened)).status).not.toBe(0)
    await b.hear("ABORT")
    expect(b.heard.map(({ name }) => name)).not.toContain("GRANT")
    expect(mvm.context.dedicated.view.usedBytes).toBe(0)
    expect(mvm.context.arena.freeBytes).toBe(mvm.context.arena.sizeBytes)
  })

  test("is what ALLOCATED said where it can be given", async () => {
    const mvm = await ScriptedMvm.start({ policy: RULE })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { opened } = await a.request((await a.alloc("b")).fields)
    await b.accept(await b.prove())
    const { fields } = await opened
    expect([parseDecision(fields.decision).isolation, fields.sealed]).toEqual(["dedicated", undefined])
  })
})

describe("memory of a channel's own", () => {
  /** @param places of each VM */
  async function withMemory(places = 2) {
    const mvm = await ScriptedMvm.start({ policy: RULE })
    const { dedicated } = mvm.context
    const calls: string[] = []
    const reserve = dedicated.reserve.bind(dedicated)
    dedicated.reserve = (...ends) => {
      const memory = reserve(...ends)
      memory.attach = async () => void calls.push("attach")
      memory.expire = () => void calls.push("expire")
      return memory
    }
    dedicated.holdings.places = () => ({ free: places, all: places, known: true })
    const [a, b, c] = [await mvm.member("a"), await mvm.member("b"), await mvm.member("c")]
    return { mvm, calls, a, b, c }
  }

  test("is given to nobody whose channel was ended while both proved themselves", async () => {
    const { mvm, calls, a, b } = await withMemory()
    await openBetween(a, b)
    calls.length = 0
    await b.offer()
    const { fields } = await a.alloc("b")
    await b.prove()
    a.send("CLOSE", { channelId: fields.channelId })
    await a.settled()
    const { opened } = await a.request(fields)
    expect((await refusal(opened)).status).not.toBe(0)
    expect(calls).not.toContain("attach")
    expect(mvm.context.channels.size).toBe(1)
  })

  test("is no more than half of a VM's places for one asker; others find theirs", async () => {
    const { mvm, a, b, c } = await withMemory(4)
    const isolations = async (): Promise<unknown[]> => {
      return mvm.context.channels.all().map(({ memory }) => memory?.isolation)
    }
    for (let count = 0; count < 3; count += 1) await openBetween(a, b)
    expect(await isolations()).toEqual(["dedicated", "dedicated", "arena"])
    await openBetween(c, b)
    expect((await isolations()).at(-1)).toBe("dedicated")
  })

  test("has its time once one end is done with it, or the channel is over", async () => {
    const { mvm, calls, a, b } = await withMemory()
    await openBetween(a, b)
    const channelId = mvm.context.channels.all()[0]!.id
    calls.length = 0
    a.send("CLOSE", { channelId })
    await a.settled()
    expect(calls).toContain("expire")
    b.send("CLOSE", { channelId })
    await until(() => mvm.context.channels.size === 0)
  })
})
