/**
 * @module test/integration/secrets
 *
 * Keys that are known here, from the state or as a peer of a channel, are nowhere they do not belong: no log, no audit
 * row, no exported evidence, no database, no argument or environment of a process, and, of a channel's keys and
 * content, not in the memory of the MVM or an agent at all.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { channelKeys } from "../../src/channel/keys.ts"
import { parseDecision } from "../../src/channel/decision.ts"
import { transcriptHash } from "../../src/channel/transcript.ts"
import { AgentClient } from "../../src/guest/agent-client.ts"
import { x25519Generate } from "../../src/lib/crypto.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { StateKeys } from "../../src/mvm/state/state-keys.ts"
import { localPaths } from "../../src/platform/local-paths.ts"
import { TestHost } from "./host.ts"
import { secretsInMemory } from "./memory-image.ts"
import { procFile, processesOf } from "./processes.ts"

const CONTENT = utf8(`the content of a transfer ${crypto.randomUUID()}`)

let host: TestHost
const state = new Map<string, Uint8Array>()
const channel = new Map<string, Uint8Array>()
let clients: AgentClient[] = []

beforeAll(async () => {
  host = await TestHost.start({ members: ["a", "b"] })
  for (const name of ["a", "b"]) {
    const own = await AgentClient.connect(localPaths(host.state, name).agent)
    own.send("STATUS", {})
    await own.until(() => own.state)
    own.close()
    await host.must("measure", "learn", name)
  }
  const master = new Uint8Array(readFileSync(join(host.state, "state.key")))
  state.set("master key", master)
  const keys = new StateKeys(master)
  for (const name of ["a", "b"]) {
    const { uuid } = await host.ask<{ uuid: string }>("vm.show", { name })
    state.set(`vTPM state key of ${name}`, keys.derive("vtpm state", uuid))
  }
  const out = join(host.folder, "delivered")
  const receiver = await host.recv("b", out, "--service", "content")
  const sender = host.send("a", "b", CONTENT, "--service", "content", "--digest", "sha256")
  expect([await sender.over(), await receiver.over()]).toEqual([0, 0])
  await openChannel()
  await host.run("guest", "send", "--local", "b", "nobody")
}, 60_000)

afterAll(async () => {
  for (const client of clients) client.close()
  await host?.end()
}, 60_000)

/** A channel whose both ends are here, so that its keys are known; it stays open. */
async function openChannel(): Promise<void> {
  const [a, b] = await Promise.all(
    ["a", "b"].map((name) => AgentClient.connect(localPaths(host.state, name).agent)),
  )
  clients = [a!, b!]
  const [asking, answering] = [x25519Generate(), x25519Generate()]
  b!.send("OFFER", { service: "keys", source: undefined, role: "receive", share: answering.publicKey })
  await b!.until(() => b!.offered)
  const request = { target: "b", service: "keys", role: "send", digest: "chain", waitMs: 5000 } as const
  a!.send("OPEN", { ...request, share: asking.publicKey })
  const fields = await a!.until(() => a!.channel)
  await b!.until(() => b!.channel)
  const transcript = transcriptHash({
    decision: fields.decision,
    laddress: fields.laddress,
    service: parseDecision(fields.decision).service,
    askerShare: asking.publicKey,
    answererShare: answering.publicKey,
  })
  const keys = channelKeys(asking.privateKey, answering.publicKey, transcript)
  channel.set("key from a to b", keys.askerToAnswerer)
  channel.set("key from b to a", keys.answererToAsker)
  channel.set("share of a", asking.privateKey)
  channel.set("share of b", answering.privateKey)
}

/** Each secret as it is, and as text would have it. */
function forms(secrets: ReadonlyMap<string, Uint8Array>): [name: string, bytes: Buffer][] {
  return [...secrets].flatMap(([name, bytes]) => [
    [name, Buffer.from(bytes)],
    [`${name} as hex`, Buffer.from(bytes.toHex())],
    [`${name} as HEX`, Buffer.from(bytes.toHex().toUpperCase())],
    [`${name} as base64`, Buffer.from(bytes.toBase64().replaceAll("=", ""))],
  ])
}

function filesUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
}

const everything = (): Map<string, Uint8Array> => new Map([...state, ...channel, ["content", CONTENT]])

test("no file that the MVM or an agent wrote holds a key or content, but the key's own", async () => {
  await host.must("audit", "export")
  host.file("exported.audit", await host.must("audit", "export"))
  host.file("exported.evidence", await host.must("measure", "evidence", "a"))
  const expected = new Set([join(host.state, "state.key"), join(host.folder, "delivered"), host.mvm])
  const files = filesUnder(host.folder).filter((path) => !expected.has(path))
  const held = files.flatMap((path) => {
    const bytes = readFileSync(path)
    return forms(everything()).flatMap(([name, secret]) =>
      bytes.includes(secret) ? [`${path}: ${name}`] : [],
    )
  })
  expect(held).toEqual([])
  for (const kind of ["serve.log", "a.log", "mvm.db", "exported.audit", "exported.evidence"]) {
    expect(files.some((path) => path.endsWith(kind) && statSync(path).size > 0)).toBe(true)
  }
})

test("no process has a key in its arguments or environment", () => {
  const processes = processesOf(host.folder)
  expect(processes.length).toBeGreaterThan(4)
  const held = processes.flatMap(({ pid }) =>
    ["cmdline", "environ"].flatMap((file) => {
      const bytes = procFile(`${pid}/${file}`)
      return forms(everything()).flatMap(([name, secret]) =>
        bytes.includes(secret) ? [`${file}: ${name}`] : [],
      )
    }),
  )
  expect(held).toEqual([])
})

describe("a memory image", () => {
  test("of the MVM has no key, share or content of a channel, though it brought the ends together", () => {
    const secrets = new Map([...channel, ["content", CONTENT] as const])
    expect(secretsInMemory(host.serving.pid, secrets)).toEqual([])
  }, 120_000)

  test("of an agent has none either, nor a key of the MVM's", () => {
    for (const name of ["a", "b"]) {
      expect(secretsInMemory(host.agentOf(name).pid, everything())).toEqual([])
    }
  }, 120_000)

  test("of the process at the channel's end has its keys: such a search finds them", () => {
    expect(secretsInMemory(process.pid, channel)).toEqual([...channel.keys()].sort())
  }, 120_000)
})

test("the state directory and the key in it are their user's alone", () => {
  const mode = (path: string): number => statSync(path).mode & 0o777
  expect(mode(host.state)).toBe(0o700)
  for (const name of ["state.key", "identity.key", "mvm.db", "control.sock", "audit.head"]) {
    expect([name, mode(join(host.state, name)) & 0o077]).toEqual([name, 0])
  }
})
