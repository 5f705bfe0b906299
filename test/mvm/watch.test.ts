import { describe, expect, test } from "bun:test"
import { openBetween, refusal, until } from "./scripted-member.ts"
import { ScriptedMvm } from "./scripted.ts"

describe("a lease", () => {
  test("never lasts longer than from the older measurement of the two ends", async () => {
    const mvm = await ScriptedMvm.start({ leaseMs: 60_000 })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await openBetween(a, b)
    const channel = mvm.context.channels.all()[0]!
    channel.answerer.measuredMs -= 40_000
    const measured = mvm.watch.measure(a.member)
    await a.measured()
    await measured
    for (const end of [a, b]) {
      const { fields } = await end.hear("LEASE")
      expect(fields.channels).toEqual([channel.id])
      expect(fields.leaseMs).toBeLessThanOrEqual(20_000)
    }
  })

  test("is not renewed while one end has not been measured in time, or by this life of the MVM", async () => {
    for (const lastMs of [-Infinity, performance.now() - 90_001]) {
      const mvm = await ScriptedMvm.start()
      const [a, b] = [await mvm.member("a"), await mvm.member("b")]
      await openBetween(a, b)
      mvm.context.channels.all()[0]!.answerer.measuredMs = lastMs
      const measured = mvm.watch.measure(a.member)
      await a.measured()
      await measured
      await a.settled()
      await b.settled()
      expect([...a.heard, ...b.heard].filter(({ name }) => name === "LEASE")).toEqual([])
    }
  })

  test("is renewed in time where a VM is measured seldom", async () => {
    const mvm = await ScriptedMvm.start({ leaseMs: 1500 })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    for (const { member } of [a, b]) {
      member.record = { ...member.record, config: { ...member.record.config, remeasureSeconds: 600 } }
    }
    for (const end of [a, b]) await end.measured()
    await openBetween(a, b)
    for (let round = 0; round < 2; round += 1) {
      for (const end of [a, b]) await end.measured()
      for (const end of [a, b]) await end.hear("LEASE")
    }
  })

  test("ends with a REVOKE at both ends when one is found untrusted, and nothing is renewed after", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await openBetween(a, b)
    const measured = mvm.watch.measure(a.member)
    const { fields, requestId } = await a.hear("MEASURE")
    const quote = a.quote({ purpose: "periodic", nonce: fields.nonce, binding: new Uint8Array(32) })
    a.send("MEASURED", { quote: { ...quote, pcrs: quote.pcrs.toReversed() } }, requestId)
    expect((await refusal(measured)).status).toBe(4)
    for (const end of [a, b]) await end.hear("REVOKE")
    expect((await refusal(a.alloc("b"))).status).toBe(4)
    const again = mvm.watch.measure(b.member)
    await b.measured()
    await again
    await b.settled()
    expect(b.heard.filter(({ name }) => name === "LEASE")).toEqual([])
  })
})

describe("evidence that arrives at once", () => {
  test("is appraised in the order it was made in, whoever waits for it", async () => {
    for (const first of ["MEASURED", "EVIDENCE"] as const) {
      const mvm = await ScriptedMvm.start()
      const [a, b] = [await mvm.member("a"), await mvm.member("b")]
      await b.offer()
      const { opened } = await a.request((await a.alloc("b")).fields)
      const measured = mvm.watch.measure(b.member)
      await until(() => ["CHALLENGE", "MEASURE"].every((name) => b.heard.some((one) => one.name === name)))
      // Both are heard already, so both answers leave in one turn.
      if (first === "MEASURED") void b.measured()
      const proving = b.prove()
      if (first === "EVIDENCE") void b.measured()
      const proven = await proving
      await measured
      await b.accept(proven)
      await opened
      expect(b.member.verifier.opinion.verdict).toBe("trusted")
    }
  })

  test("of an asker is, too", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { fields } = await a.alloc("b")
    const measured = mvm.watch.measure(a.member)
    await until(() => a.heard.some(({ name }) => name === "MEASURE"))
    const [{ opened }] = await Promise.all([a.request(fields), a.measured()])
    await measured
    await b.accept(await b.prove())
    await opened
    expect(a.member.verifier.opinion.verdict).toBe("trusted")
  })
})
