import { describe, expect, test } from "bun:test"
import { random, x25519Generate } from "../../src/lib/crypto.ts"
import { connectUnix } from "../../src/platform/unix-socket.ts"
import { FrameReader, encodeFrame } from "../../src/wire/frame.ts"
import { MESSAGES, PROTOCOL_VERSION } from "../../src/wire/messages.ts"
import { decodeMessage, encodeMessage } from "../../src/wire/table.ts"
import { openBetween, refusal, until } from "./scripted-member.ts"
import { ScriptedMvm } from "./scripted.ts"

describe("refused requests", () => {
  test("are all counted in the audit, whose rows stay few", async () => {
    const mvm = await ScriptedMvm.start({ policy: "" })
    const [a] = [await mvm.member("a"), await mvm.member("b")]
    const requests = 300
    for (let count = 0; count < requests; count += 1) {
      expect((await refusal(a.alloc("b"))).code).toBe("denied")
    }
    mvm.broker.flush()
    const rows = mvm.audited("refused")
    const more = mvm.audited("refused_more")
    expect(rows.length).toBeLessThan(80)
    expect(more).toHaveLength(1)
    expect(more[0]).toMatchObject({ asker: "a", codes: { denied: requests - rows.length } })
  })

  test("of one member cost another no row", async () => {
    const mvm = await ScriptedMvm.start({ policy: "" })
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    for (let count = 0; count < 100; count += 1) await refusal(a.alloc("b"))
    await refusal(b.alloc("a"))
    expect(mvm.audited("refused").filter((row) => row["asker"] === "b")).toHaveLength(1)
  })

  test("under way are bounded, and a request id is used once at a time", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const waiting = Array.from({ length: 256 }, () => refusal(a.alloc("b", { waitMs: 60_000 })))
    expect((await refusal(a.alloc("b", { waitMs: 60_000 }))).code).toBe("busy")
    expect((await refusal(b.alloc("a"))).code).toBe("no_receiver")
    await a.relink()
    for (const refused of await Promise.all(waiting)) expect(refused.status).toBe(3)
    expect((await refusal(a.alloc("b"))).code).toBe("no_receiver")
  })
})

describe("a member that repeats itself", () => {
  test("aborts a channel once", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id } = await openBetween(a, b)
    for (let count = 0; count < 50; count += 1) {
      a.send("ABORT", { channelId: id, code: "aborted", message: "no more" })
    }
    await a.settled()
    await b.hear("ABORT")
    await b.settled()
    expect(b.heard).toEqual([])
    expect(mvm.audited("abort")).toHaveLength(1)
  })

  test("is ready once in an epoch", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    await openBetween(a, b)
    const again = a.client.link.request("READY", { canMap: true, mapping: "", channels: [] }, "SETTINGS", {
      timeoutMs: 5000,
    })
    expect((await refusal(again)).code).toBe("protocol")
    expect(mvm.context.channels.all()[0]!.state).toBe("open")
  })

  test("kicks an end that reads, and fills no queue of one that does not", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id } = await openBetween(a, b)
    a.send("KICK", { channelId: id })
    await b.hear("KICK")
    Object.defineProperty(b.member.socket, "backlogBytes", { value: 1 << 20 })
    for (let count = 0; count < 100; count += 1) a.send("KICK", { channelId: id })
    await a.settled()
    await b.settled()
    expect(b.heard).toEqual([])
  })

  test("makes the MVM answer only so many of its HELLOs", async () => {
    const mvm = await ScriptedMvm.start()
    const a = await mvm.member("a")
    a.client.stop()
    await until(() => a.member.session === undefined)
    let welcomes = 0
    const reader = new FrameReader()
    const socket = await connectUnix(`${mvm.folder}/a.sock`, {
      onData: (chunk) => {
        for (const frame of reader.push(chunk)) {
          if (decodeMessage(MESSAGES, frame.payload, "mvm").name === "WELCOME") welcomes += 1
        }
      },
      onClose: () => {},
    })
    const hello = encodeFrame(
      encodeMessage(MESSAGES, "HELLO", 0, {
        version: PROTOCOL_VERSION,
        guestNonce: random(32),
        guestShare: x25519Generate().publicKey,
        bootId: random(16),
        kind: "agent",
        agent: "flood",
      }),
    )
    const before = a.member.link.counters.framesIn
    for (let count = 0; count < 2000; count += 1) socket.write(hello)
    await until(() => a.member.link.counters.framesIn >= before + 2000)
    await until(() => welcomes > 0)
    expect(a.member.link.counters.framesOut).toBeLessThan(100)
    socket.close()
    await until(() => a.member.socket === undefined)
    await a.link()
  })
})

describe("a channel", () => {
  test("that one end leaves without a word ends for the other", async () => {
    for (const who of [0, 1] as const) {
      const mvm = await ScriptedMvm.start()
      const ends = [await mvm.member("a"), await mvm.member("b")] as const
      const { id } = await openBetween(...ends)
      ends[who].send("CLOSE", { channelId: id })
      const { fields } = await ends[1 - who]!.hear("ABORT")
      expect(fields.message).toContain("left")
      expect(mvm.context.channels.size).toBe(1)
    }
  })

  test("that was revoked while a link was down is told so when it is back", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b] = [await mvm.member("a"), await mvm.member("b")]
    const { id, transcript } = await openBetween(a, b)
    a.client.stop()
    await until(() => a.member.session === undefined)
    mvm.broker.end(mvm.context.channels.all()[0]!, "revoked", "closed by the operator")
    a.held = [{ channelId: id, transcript }]
    await a.link()
    expect((await a.hear("REVOKE")).fields.message).toContain("operator")
  })

  test("is nobody's but its ends'", async () => {
    const mvm = await ScriptedMvm.start()
    const [a, b, c] = [await mvm.member("a"), await mvm.member("b"), await mvm.member("c")]
    const { id } = await openBetween(a, b)
    c.send("ABORT", { channelId: id, code: "aborted", message: "" })
    c.send("CLOSE", { channelId: id })
    c.send("KICK", { channelId: id })
    expect((await refusal(c.end("FIN", id))).message).toBe((await refusal(c.end("FIN", random(16)))).message)
    await a.end("FIN", id)
    await b.hear("FIN")
    expect(a.heard).toEqual([])
    // The right end with the wrong direction, or another's key.
    expect((await refusal(b.end("FIN", id))).code).toBe("protocol")
    expect((await refusal(a.end("RECEIPT", id))).code).toBe("protocol")
    expect((await refusal(b.end("RECEIPT", id, { signature: new Uint8Array(64) }))).code).toBe("signature")
    expect((await refusal(b.end("RECEIPT", id, { lengthBytes: 9 }))).code).toBe("digest_mismatch")
    expect(mvm.audited("receipt")).toEqual([])
  })
})
