/** @module test/mvm/channels/reach */

import { describe, expect, test } from "bun:test"
import type { Fields } from "../../../src/wire/link.ts"
import { sampleVm } from "../scratch-state.ts"
import { PROGRAM, refusal, type ScriptedMember } from "../scripted-member.ts"
import { ScriptedMvm } from "../scripted.ts"

type Peers = Fields<"PEER_LIST">

function rule(fields: Record<string, string>): string {
  const all = { action: "allow", measurement: "agent", ...fields }
  const kept = Object.entries(all).filter(([key]) => all.action === "allow" || key !== "measurement")
  return `[[rule]]\n${kept.map(([key, value]) => `${key} = ${JSON.stringify(value)}`).join("\n")}\n`
}

async function ask(member: ScriptedMember, after?: string, program = PROGRAM): Promise<Peers> {
  const { fields } = await member.client.link.request("PEERS", { after, program }, "PEER_LIST", {
    timeoutMs: 10_000,
  })
  return fields
}

async function names(member: ScriptedMember): Promise<string[]> {
  return (await ask(member)).peers.map(({ name }) => name)
}

/** A registered local endpoint whose agent is not there. */
function absent(mvm: ScriptedMvm, name: string, tags: string[] = []): void {
  mvm.context.registry.insertVm(sampleVm(name, { kind: "local", tags }))
}

describe("who may be reached", () => {
  test("is who the rules for the asker name, linked or not, with the verdict of the moment", async () => {
    const mvm = await ScriptedMvm.start({
      policy:
        rule({ service: "*", from: "a", to: "b" }) + rule({ service: "dump", from: "a", to: "tag:store" }),
    })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    absent(mvm, "backup", ["store"])
    absent(mvm, "secret")
    expect((await ask(a)).peers).toEqual([
      { name: "b", linked: true, verdict: "unknown", services: [] },
      { name: "backup", linked: false, verdict: "unknown", services: [] },
    ])
    await b.measured()
    expect((await ask(a)).peers.find(({ name }) => name === "b")?.verdict).toBe("trusted")
    expect(await names(b)).toEqual([])
  })

  test("nobody is, under a policy that is broken, or denies before it allows", async () => {
    const denied =
      rule({ service: "*", from: "*", to: "b", action: "deny" }) + rule({ service: "*", from: "*", to: "*" })
    const mvm = await ScriptedMvm.start({ policy: denied })
    const a = await mvm.member("a")
    await mvm.member("b")
    absent(mvm, "c")
    expect(await names(a)).toEqual(["c"])
    const broken = await ScriptedMvm.start({ policy: "[[rule]]\n" })
    const other = await broken.member("a")
    await broken.member("b")
    expect(await names(other)).toEqual([])
  })

  test("depends on the program that asks, and on whose measurement counts", async () => {
    const mvm = await ScriptedMvm.start({
      policy:
        `[[rule]]\nservice = "*"\nfrom = "a"\nto = "b"\naction = "allow"\nmeasurement = "agent"\nprograms = ["/usr/bin/pipe"]\n` +
        rule({ service: "*", from: "a", to: "c", measurement: "kernel" }),
    })
    const a = await mvm.member("a")
    await mvm.member("b")
    await mvm.member("c")
    expect(await names(a)).toEqual(["b"])
    expect((await ask(a, undefined, { ...PROGRAM, path: "/usr/bin/other" })).peers).toEqual([])
  })

  test("goes by the name that is asked for where a rule sends it elsewhere", async () => {
    const mvm = await ScriptedMvm.start({
      policy: rule({ service: "print", from: "a", to: "printer", target: "office-7" }),
    })
    const a = await mvm.member("a")
    const office = await mvm.member("office-7")
    await office.offer("print")
    const { peers } = await ask(a)
    expect(peers).toEqual([
      { name: "printer", linked: true, verdict: "unknown", services: [{ name: "print", role: "receive" }] },
    ])
    expect(JSON.stringify(peers)).not.toContain("office")
  })
})

describe("what waits there", () => {
  test("is what this VM may use of it, each once, and not what is for others", async () => {
    const mvm = await ScriptedMvm.start({
      policy:
        rule({ service: "admin", from: "*", to: "*", action: "deny" }) +
        rule({ service: "*", from: "*", to: "*" }),
    })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    for (const service of ["dump", "dump", "admin", "mvm.ping"]) await b.offer(service)
    await b.offer("dump", "send")
    const offer = { offerId: 99, role: "receive" as const, program: PROGRAM }
    const done = { timeoutMs: 10_000 }
    await b.client.link.request("OFFER", { ...offer, service: "for-c", source: "c" }, "DONE", done)
    await b.client.link.request(
      "OFFER",
      { ...offer, offerId: 98, service: "for-a", source: "a" },
      "DONE",
      done,
    )
    const { peers } = await ask(a)
    expect(peers[0]?.services).toEqual([
      { name: "dump", role: "receive" },
      { name: "dump", role: "send" },
      { name: "for-a", role: "receive" },
    ])
  })
})

describe("a host of many VMs", () => {
  test("is listed page by page, in the order of names", async () => {
    const mvm = await ScriptedMvm.start()
    const a = await mvm.member("a")
    const wanted = Array.from({ length: 40 }, (_, index) => `vm-${String(index).padStart(2, "0")}`)
    for (const name of wanted) absent(mvm, name)
    const seen: string[] = []
    for (let more = true; more;) {
      const page = await ask(a, seen.at(-1))
      expect(page.peers.length).toBeLessThanOrEqual(16)
      seen.push(...page.peers.map(({ name }) => name))
      more = page.more
    }
    expect(seen).toEqual(wanted)
  })

  test("tells nothing of those that may not be reached, not even that there are more", async () => {
    const mvm = await ScriptedMvm.start({ policy: rule({ service: "*", from: "a", to: "vm-00" }) })
    const a = await mvm.member("a")
    for (let index = 0; index < 40; index += 1) absent(mvm, `vm-${String(index).padStart(2, "0")}`)
    expect(await ask(a)).toEqual({
      peers: [{ name: "vm-00", linked: false, verdict: "unknown", services: [] }],
      more: false,
    })
    expect(await ask(a, "vm-00")).toEqual({ peers: [], more: false })
  })

  test("is not asked about without end", async () => {
    const mvm = await ScriptedMvm.start()
    const a = await mvm.member("a")
    const refused: string[] = []
    for (let index = 0; index < 40; index += 1) {
      await ask(a).catch((error: { code: string }) => refused.push(error.code))
    }
    expect(refused.length).toBeGreaterThan(10)
    expect(new Set(refused)).toEqual(new Set(["busy"]))
    const [first, second] = await Promise.allSettled([ask(await mvm.member("b")), ask(await mvm.member("c"))])
    expect([first?.status, second?.status]).toEqual(["fulfilled", "fulfilled"])
  })

  test("answers one question of a VM at a time", async () => {
    const mvm = await ScriptedMvm.start()
    const a = await mvm.member("a")
    for (let index = 0; index < 100; index += 1) absent(mvm, `vm-${index}`)
    const first = ask(a)
    expect((await refusal(ask(a))).code).toBe("busy")
    await first
  })
})
