import { describe, expect, test } from "bun:test"
import { parseDecision } from "../../../src/channel/decision.ts"
import { openBetween, refusal } from "../scripted-member.ts"
import { ScriptedMvm } from "../scripted.ts"

describe("the end of a direction", () => {
  test("is logged once and forwarded, however often it is said", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id } = await openBetween(a, b)
    await a.end("FIN", id)
    await a.end("FIN", id)
    expect(mvm.audited("fin")).toHaveLength(1)
    await b.hear("FIN")
    await b.end("RECEIPT", id)
    await a.hear("RECEIPT")
    expect(mvm.audited("receipt")).toHaveLength(1)
  })

  test("may be said by the answerer as soon as it has accepted, and reaches the asker after OPENED", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { opened } = await a.request((await a.alloc("b")).fields)
    const { id } = await b.accept(await b.prove())
    // Nothing was awaited since ACCEPT: the row of the grant need not be on disk.
    const said = b.end("FIN", id, { direction: 1 })
    await opened
    await said
    await a.hear("FIN")
    expect(mvm.audited("fin")).toHaveLength(1)
  })

  test("is refused to an asker that was not told of the opening, and to an answerer that did not accept", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { fields } = await a.alloc("b")
    await a.request(fields)
    await b.prove()
    await b.hear("GRANT")
    expect((await refusal(a.end("FIN", fields.channelId))).code).toBe("protocol")
    expect((await refusal(b.end("FIN", fields.channelId, { direction: 1 }))).code).toBe("protocol")
  })

  test("is not forwarded when its row could not be written, not even when it is said again", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id } = await openBetween(a, b)
    mvm.context.audit.flush()
    mvm.context.registry.database.prepare("ALTER TABLE audit RENAME TO audit_gone").run()
    const both = [refusal(a.end("FIN", id)), refusal(a.end("FIN", id))]
    for (const refused of await Promise.all(both)) expect(refused.code).toBe("internal")
    await b.settled()
    expect(b.heard.filter((message) => message.name === "FIN")).toEqual([])
    mvm.context.registry.database.prepare("ALTER TABLE audit_gone RENAME TO audit").run()
    await a.end("FIN", id)
    await b.hear("FIN")
    expect(mvm.audited("fin")).toHaveLength(1)
  })

  test("tells a guest nothing of the host when the row cannot be written", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id } = await openBetween(a, b)
    mvm.context.registry.database.prepare("ALTER TABLE audit RENAME TO audit_gone").run()
    const refused = await refusal(a.end("FIN", id))
    mvm.context.registry.database.prepare("ALTER TABLE audit_gone RENAME TO audit").run()
    expect(refused.message).not.toContain("/")
    expect(refused.hint ?? "").not.toContain("/")
  })

  test("is refused beyond the rule's max_bytes, which the decision tells both ends", async () => {
    const rule = 'service = "@any"\nfrom = "@any"\nto = "@any"\naction = "allow"\nmeasurement = "agent"'
    const mvm = await ScriptedMvm.start({ policy: `[[rule]]\n${rule}\nmax_bytes = "1 KiB"\n` })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await b.offer()
    const { opened } = await a.request((await a.alloc("b")).fields)
    const { id } = await b.accept(await b.prove())
    expect(parseDecision((await opened).fields.decision).maxBytes).toBe(1024)
    expect((await refusal(a.end("FIN", id, { lengthBytes: 1025 }))).code).toBe("denied")
    await a.end("FIN", id, { lengthBytes: 1024 })
    await b.hear("FIN")
    expect(mvm.audited("fin")).toHaveLength(1)
  })

  test("carries the content's own hash where the decision says so, and nowhere else", async () => {
    const rule = 'service = "@any"\nfrom = "@any"\nto = "@any"\naction = "allow"\nmeasurement = "agent"'
    const mvm = await ScriptedMvm.start({ policy: `[[rule]]\n${rule}\ndigest = "sha256"\n` })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id } = await openBetween(a, b)
    expect((await refusal(a.end("FIN", id))).code).toBe("protocol")
    await a.end("FIN", id, { content: new Uint8Array(32) })
    const plain = await ScriptedMvm.start()
    const [c, d] = [await plain.member("a"), await plain.member("b")]
    const other = await openBetween(c, d)
    expect((await refusal(c.end("FIN", other.id, { content: new Uint8Array(32) }))).code).toBe("protocol")
  })
})
