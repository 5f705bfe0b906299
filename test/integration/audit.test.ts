/**
 * @module test/integration/audit
 *
 * What is left on paper of a transfer, checked with nothing of the program but the bytes that are signed.
 */

import { describe, expect, test } from "bun:test"
import { createHash, createPublicKey, verify, type KeyObject } from "node:crypto"
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { finMessage, receiptMessage } from "../../src/channel/transcript.ts"
import { hostForFile, type Outcome } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })
const CONTENT = crypto.getRandomValues(new Uint8Array(300_000))

type Row = Record<string, unknown>

async function transfer(): Promise<void> {
  const receiver = await host().recv("b", join(host().folder, "out"))
  const sender = host().send("a", "b", CONTENT, "--digest", "sha256")
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
}

async function last(kind: string): Promise<Row> {
  return (await host().audit(kind)).at(-1) ?? {}
}

/** A 65-byte P-256 point, as the runtime's own cryptography takes it. */
function keyOf(point: string): KeyObject {
  const bytes = Buffer.from(point, "hex")
  const [x, y] = [bytes.subarray(1, 33), bytes.subarray(33)].map((half) => half.toString("base64url"))
  return createPublicKey({ key: { kty: "EC", crv: "P-256", x: x as string, y: y as string }, format: "jwk" })
}

async function identityOf(name: string): Promise<KeyObject> {
  const { keys } = await host().json<{ keys: { identity: string } }>("vm", "show", name)
  return keyOf(keys.identity)
}

function statement(row: Row): Parameters<typeof finMessage>[0] {
  const bytes = (field: string): Uint8Array => Uint8Array.fromHex(String(row[field]))
  return {
    channelId: bytes("channel"),
    direction: Number(row["direction"]),
    lengthBytes: Number(row["lengthBytes"]),
    records: Number(row["records"]),
    digest: bytes("digest"),
    content: row["content"] === null ? undefined : bytes("content"),
  }
}

function isSignedBy(key: KeyObject, message: Uint8Array, row: Row): boolean {
  const signature = Buffer.from(String(row["signature"]), "hex")
  return verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, signature)
}

/** Every file below `folder`. */
function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
}

describe("a transfer", () => {
  test("leaves a grant, a FIN signed by the sender and a receipt signed by the receiver", async () => {
    await transfer()
    const [grant, fin, receipt] = [await last("grant"), await last("fin"), await last("receipt")]
    expect(grant).toMatchObject({ asker: "a", answerer: "b", service: "default", rule: "policy.toml:1" })
    const content = createHash("sha256").update(CONTENT).digest("hex")
    const common = { channel: grant["channel"], lengthBytes: CONTENT.length, content }
    expect(fin).toMatchObject({ ...common, by: "a", peer: "b" })
    expect(receipt).toMatchObject({ ...common, by: "b", peer: "a", digest: fin["digest"] })
    const [a, b] = [await identityOf("a"), await identityOf("b")]
    expect(isSignedBy(a, finMessage(statement(fin)), fin)).toBe(true)
    expect(isSignedBy(b, receiptMessage(statement(receipt)), receipt)).toBe(true)
    expect(isSignedBy(a, receiptMessage(statement(receipt)), receipt)).toBe(false)
    expect(isSignedBy(b, finMessage(statement(receipt)), receipt)).toBe(false)
    const other = { ...statement(receipt), lengthBytes: CONTENT.length + 1 }
    expect(isSignedBy(b, receiptMessage(other), receipt)).toBe(false)
  })

  test("that was refused or revoked leaves a row that says why", async () => {
    expect((await host().run("guest", "send", "--local", "a", "nobody")).status).toBe(3)
    expect(await last("refused")).toMatchObject({ asker: "a", target: "nobody", code: "no_target" })
    const receiver = await host().recv("b", join(host().folder, "out"))
    const sender = host().send("a", "b", "pipe")
    await host().until("the channel", async () => (await host().status()).channels === 1)
    await host().until("the channel to be open", async () => {
      const [channel] = await host().json<{ id: string; state: string }[]>("channel", "list")
      if (channel?.state !== "open") return false
      await host().must("channel", "close", channel.id)
      return true
    })
    expect([await sender.over(), await receiver.over()]).toEqual([7, 7])
    expect(await last("revoke")).toMatchObject({ reason: "closed by the operator" })
  })
})

describe("the log", () => {
  test("verifies, live and as an export by whoever has the MVM's public key", async () => {
    expect(await host().must("audit", "verify")).toContain("chain and signatures hold")
    const { stdout, stderr, status } = await host().run("audit", "export")
    expect(status).toBe(0)
    const key = /--key ([0-9a-f]{130})/.exec(stderr)?.[1] ?? ""
    const file = host().file("export.jsonl", stdout)
    const good = await host().run("audit", "verify", file, "--key", key, "--state", "/nonexistent")
    expect([good.status, good.stdout]).toEqual([0, expect.stringContaining("chain and signatures hold")])
    const lines = stdout.trimEnd().split("\n")
    const tampered: [string, string[]][] = [
      ["a changed row", lines.map((line, at) => (at === 3 ? line.replace(/"b"|"a"/, '"x"') : line))],
      ["a row left out", lines.filter((_line, at) => at !== 3)],
      ["two rows swapped", lines.with(3, lines[4] as string).with(4, lines[3] as string)],
    ]
    for (const [name, rows] of tampered) {
      writeFileSync(file, `${rows.join("\n")}\n`)
      expect([name, (await host().run("audit", "verify", file, "--key", key)).status]).toEqual([name, 5])
    }
  })

  test("shows a cut-off end of an export to whoever noted a head, and no daemon is asked", async () => {
    const { stdout, stderr } = await host().run("audit", "export")
    const [, key = "", head = ""] = /--key ([0-9a-f]{130}) --head (\d+:[0-9a-f]{64})/.exec(stderr) ?? []
    const pem = host().file("mvm.pem", keyOf(key).export({ format: "pem", type: "spki" }).toString())
    const verify = (file: string, ...words: string[]): Promise<Outcome> =>
      host().run("audit", "verify", file, "--key", pem, "--state", "/nonexistent", ...words)
    const whole = host().file("whole.jsonl", stdout)
    expect(await verify(whole, "--head", head)).toMatchObject({
      status: 0,
      stdout: expect.stringContaining(head),
    })
    const cut = host().file("cut.jsonl", `${stdout.trimEnd().split("\n").slice(0, -1).join("\n")}\n`)
    expect((await verify(cut)).status).toBe(0)
    const missed = await verify(cut, "--head", head)
    expect([missed.status, missed.stderr]).toEqual([5, expect.stringContaining("is not in the export")])
    const bad = await verify(whole, "--head", "7")
    expect([bad.status, bad.stderr]).toEqual([2, expect.stringContaining("--head: 7 is no head")])
    expect((await host().run("audit", "verify", "--head", head)).status).toBe(2)
  })

  test("is listed by kind, VM, channel and time", async () => {
    await transfer()
    const rows = (...words: string[]): Promise<Row[]> => host().json<Row[]>("audit", "list", ...words)
    const receipts = await rows("--kind", "receipt")
    expect(receipts.length).toBeGreaterThan(0)
    const { channel, time } = receipts.at(-1)!
    const ofChannel = await rows("--channel", String(channel).slice(0, 8))
    expect(ofChannel.map((row) => row["kind"])).toEqual(["grant", "fin", "receipt"])
    expect(await rows("--channel", "ffff", "--kind", "grant")).toEqual([])
    expect((await host().run("audit", "list", "--channel", "*")).status).toBe(2)
    expect((await rows("--until", String(time))).some((row) => String(row["time"]) > String(time))).toBe(
      false,
    )
    expect(await rows("--until", "1h")).toEqual([])
    expect(await rows("--since", "2099-01-01")).toEqual([])
    expect((await rows("--vm", "a", "--kind", "vm_create")).map((row) => row["vm"])).toEqual(["a"])
    expect((await rows("--limit", "2")).length).toBe(2)
  })

  test("is followed: rows come as they are written", async () => {
    const following = host().spawn(
      ["audit", "list", "--follow", "--kind", "receipt", "--limit", "1", "--json"],
      {
        stdout: join(host().folder, "followed"),
      },
    )
    const followed = (): Row[] =>
      readFileSync(join(host().folder, "followed"), "utf8")
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Row)
    await host().until("the last row", () => followed().length === 1)
    await transfer()
    await host().until("the next row", () => followed().length === 2)
    following.kill("SIGINT")
    expect(await following.over()).toBe(130)
    const [first, second] = followed()
    expect(Number(second?.["sequence"])).toBeGreaterThan(Number(first?.["sequence"]))
    expect(second).toMatchObject({ kind: "receipt", by: "b" })
  })

  test("holds no secret, and neither does any other file or log but the key files themselves", async () => {
    await host().must("audit", "list")
    await host().stopServe()
    const { state, folder } = host()
    const keyFiles = filesOf(state).filter((path) => statSync(path).size === 32)
    expect(keyFiles.length).toBeGreaterThan(0)
    const secrets = keyFiles.flatMap((path) => {
      const key = readFileSync(path)
      return [key, Buffer.from(key.toString("hex")), Buffer.from(key.toString("base64"))]
    })
    const readable = filesOf(folder).filter((path) => !keyFiles.includes(path) && path !== host().mvm)
    const telling = readable.filter((path) => {
      const content = readFileSync(path)
      return secrets.some((secret) => content.includes(secret))
    })
    expect(telling).toEqual([])
    for (const path of keyFiles) expect((statSync(path).mode & 0o077).toString(8)).toBe("0")
    await host().serve()
    await Promise.all([host().linked("a"), host().linked("b")])
  })
})

describe("--json", () => {
  const commands = [
    "status",
    "vm list",
    "vm show a",
    "measure show a",
    "measure diff a",
    "measure explain a",
    "policy test default a b",
    "channel list",
    "audit list",
    "audit list --kind receipt --since 1h",
    "audit verify",
    "guest status --local a",
  ]
  test.each(commands)("of mvm %s is one JSON value on one line and nothing else", async (command) => {
    const { status, stdout, stderr } = await host().run(...command.split(" "), "--json")
    expect([status, stderr, stdout.trimEnd().split("\n").length]).toEqual([0, "", 1])
    expect(typeof JSON.parse(stdout)).toBe("object")
  })
})
