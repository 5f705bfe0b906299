import { afterEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { MvmError } from "../../src/lib/errors.ts"
import { RpcClient, serveRpc, type Handler } from "../../src/platform/json-rpc.ts"
import { connectUnix } from "../../src/platform/unix-socket.ts"

const undo: (() => void)[] = []
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step()
})

function serving(handlers: Record<string, Handler>): string {
  const folder = mkdtempSync(join(tmpdir(), "mvm-rpc-"))
  const path = join(folder, "control.sock")
  const listener = serveRpc(path, new Map(Object.entries(handlers)))
  undo.push(() => {
    listener.close()
    rmSync(folder, { recursive: true, force: true })
  })
  return path
}

async function client(path: string): Promise<RpcClient> {
  const made = await RpcClient.connect(path)
  undo.push(() => made.close())
  return made
}

describe("requests to the daemon", () => {
  test("are answered, and fail with the daemon's code, message and hint", async () => {
    const rpc = await client(
      serving({
        add: ({ a, b }) => Number(a) + Number(b),
        deny: () => {
          throw new MvmError("denied", "no", { hint: "ask" })
        },
      }),
    )
    expect(await rpc.call<number>("add", { a: 1, b: 2 })).toBe(3)
    expect(rpc.call("deny")).rejects.toMatchObject({ code: "denied", message: "no", hint: "ask" })
    expect(rpc.call("unknown")).rejects.toMatchObject({ code: "usage" })
  })

  test("whose answer no JSON can hold are answered with an error", async () => {
    const rpc = await client(serving({ big: () => ({ value: 1n }) }))
    expect(rpc.call("big")).rejects.toMatchObject({ code: "internal" })
  })

  test("end when the daemon has gone, those made afterwards too", async () => {
    const path = serving({ wait: () => new Promise(() => {}) })
    const rpc = await client(path)
    const waiting = rpc.call("wait").then(
      () => "answered",
      (error: MvmError) => error.code,
    )
    rpc.close()
    expect(await waiting).toBe("no_mvm")
    expect(rpc.call("wait")).rejects.toMatchObject({ code: "no_mvm" })
  })

  test("that are no JSON are refused, and the connection goes on", async () => {
    const path = serving({ one: () => 1 })
    const lines: string[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    const socket = await connectUnix(path, {
      onData: (chunk) => {
        lines.push(new TextDecoder().decode(chunk))
        if (lines.join("").split("\n").length > 2) resolve()
      },
      onClose: () => resolve(),
    })
    undo.push(() => socket.close())
    socket.write(Buffer.from('nonsense\n{"id": 7, "method": "one"}\n'))
    await promise
    expect(lines.join("")).toContain('{"id":7,"result":1}')
  })
})

describe("progress", () => {
  const LINE = "x".repeat(1024)

  // More than the daemon queues for a caller.
  test("of any length arrives whole: the daemon waits for a caller that reads slowly", async () => {
    const count = 100_000
    const path = serving({
      export: async (_params, { progress }) => {
        for (let at = 0; at < count; at += 1) await progress(LINE)
        return count
      },
    })
    let seen = 0
    const rpc = await client(path)
    expect(await rpc.call<number>("export", {}, () => (seen += 1))).toBe(count)
    expect(seen).toBe(count)
  })

  test("ends when the caller hangs up", async () => {
    const { promise, resolve } = Promise.withResolvers<string>()
    const path = serving({
      endless: async (_params, { progress, gone }) => {
        while (!gone.aborted) await progress(LINE)
        resolve("gone")
      },
    })
    const rpc = await client(path)
    let seen = 0
    rpc
      .call("endless", {}, () => {
        seen += 1
        if (seen === 10) rpc.close()
      })
      .catch(() => {})
    expect(await promise).toBe("gone")
  })
})
