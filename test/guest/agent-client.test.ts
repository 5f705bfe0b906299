import { afterEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AgentClient } from "../../src/guest/agent-client.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { listenUnix, type ByteSocket } from "../../src/platform/unix-socket.ts"
import { LocalLink } from "../../src/wire/local-link.ts"

const undo: (() => void)[] = []
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step()
})

/** A command, and the agent's end of its connection. */
async function connected(): Promise<{ client: AgentClient; agent: LocalLink<"agent">; socket: ByteSocket }> {
  const folder = mkdtempSync(join(tmpdir(), "mvm-agent-"))
  const { promise, resolve } = Promise.withResolvers<ByteSocket>()
  const listener = listenUnix(join(folder, "s"), 0o600, resolve)
  const client = await AgentClient.connect(join(folder, "s"))
  const socket = await promise
  undo.push(() => {
    client.close()
    listener.close()
    rmSync(folder, { recursive: true })
  })
  return {
    client,
    socket,
    agent: new LocalLink(
      "agent",
      (bytes) => socket.write(bytes),
      () => {},
    ),
  }
}

function failure(work: () => unknown): MvmError | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return error as MvmError
  }
}

async function heard(client: AgentClient, agent: LocalLink<"agent">): Promise<void> {
  const json = crypto.randomUUID()
  agent.send("STATE", { json })
  while (client.state !== json) await Bun.sleep(1)
}

describe("a lease", () => {
  test("lasts as long as it is renewed in time", async () => {
    const { client, agent } = await connected()
    agent.send("LEASE", { leaseMs: 60_000 })
    agent.send("LEASE", { leaseMs: 90_000 })
    await heard(client, agent)
    expect(client.leaseEndsMs - performance.now()).toBeGreaterThan(60_000)
    expect(failure(() => client.check())).toBeUndefined()
  })

  test("that is over is not brought back by a renewal that was read too late", async () => {
    const { client, agent } = await connected()
    agent.send("LEASE", { leaseMs: 1 })
    await heard(client, agent)
    while (performance.now() <= client.leaseEndsMs) await Bun.sleep(1)
    agent.send("LEASE", { leaseMs: 90_000 })
    await heard(client, agent)
    expect(failure(() => client.check())?.code).toBe("lease_expired")
  })

  test("ends a wait for something that never comes", async () => {
    const { client, agent } = await connected()
    agent.send("LEASE", { leaseMs: 20 })
    await heard(client, agent)
    const waited = await client
      .until(() => client.peerReceipt)
      .then(
        () => undefined,
        (error: MvmError) => error.code,
      )
    expect(waited).toBe("lease_expired")
  })

  test("is nothing after a REVOKE", async () => {
    const { client, agent } = await connected()
    agent.send("REVOKE", { message: "no longer" })
    agent.send("LEASE", { leaseMs: 90_000 })
    agent.send("ABORT", { code: "aborted", message: "later" })
    await heard(client, agent)
    expect(failure(() => client.check())).toMatchObject({ code: "revoked", status: 7 })
  })
})

test("a command whose agent goes, or talks nonsense, fails", async () => {
  const gone = await connected()
  gone.socket.close()
  expect(
    await gone.client
      .until(() => gone.client.channel)
      .then(
        () => undefined,
        (error: MvmError) => error.code,
      ),
  ).toBe("no_agent")
  const nonsense = await connected()
  nonsense.socket.write(new Uint8Array(64).fill(0xaa))
  while (!nonsense.client.failure) await Bun.sleep(1)
  expect(nonsense.client.failure.status).toBe(5)
})
