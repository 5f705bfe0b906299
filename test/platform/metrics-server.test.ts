/** @module test/platform/metrics-server */

import { afterEach, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseMetricsAddress, serveMetrics, type MetricsServer } from "../../src/platform/metrics-server.ts"

const undo: (() => void)[] = []

afterEach(() => {
  for (const step of undo.splice(0).reverse()) step()
})

function serving(address: string, text: () => string): MetricsServer {
  const server = serveMetrics(parseMetricsAddress(address, "--metrics"), "text/plain", text)
  undo.push(() => server.close())
  return server
}

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "mvm-metrics-"))
  undo.push(() => rmSync(made, { recursive: true, force: true }))
  return made
}

describe("an address", () => {
  test.each([
    ["127.0.0.1:9745", { hostname: "127.0.0.1", port: 9745 }],
    ["127.9.9.9:0", { hostname: "127.9.9.9", port: 0 }],
    ["[::1]:9745", { hostname: "::1", port: 9745 }],
    ["unix:/run/mvm/metrics.sock", { unix: "/run/mvm/metrics.sock" }],
  ])("%s is taken", (text, address) => {
    expect(parseMetricsAddress(text, "--metrics")).toEqual(address)
  })

  test.each([
    "0.0.0.0:9745",
    "192.168.1.1:9745",
    "localhost:9745",
    "[::]:9745",
    "::1:9745",
    "127.0.0.1",
    "127.0.0.1:70000",
    "127.0.0.999:1",
    "127.0.0.1.example.org:1",
    ":9745",
    "9745",
    "unix:",
    `unix:/${"x".repeat(200)}`,
    "",
  ])("%p is refused: it is not loopback, or may not be", (text) => {
    expect(() => parseMetricsAddress(text, "--metrics")).toThrow("--metrics: ")
  })
})

describe.each(["unix", "tcp"])("over %s", (kind) => {
  function start(text: () => string): { get(path: string, method?: string): Promise<Response> } {
    if (kind === "tcp") {
      const { address } = serving("127.0.0.1:0", text)
      const { port } = address as { port: number }
      return { get: (path, method = "GET") => fetch(`http://127.0.0.1:${port}${path}`, { method }) }
    }
    const unix = join(folder(), "m.sock")
    serving(`unix:${unix}`, text)
    return { get: (path, method = "GET") => fetch(`http://localhost${path}`, { unix, method }) }
  }

  test("GET /metrics gets what is said at that moment, anything else nothing of it", async () => {
    let count = 0
    const { get } = start(() => `n ${(count += 1)}\n`)
    const first = await get("/metrics")
    expect([first.status, first.headers.get("content-type"), await first.text()]).toEqual([
      200,
      "text/plain",
      "n 1\n",
    ])
    expect(await (await get("/metrics?x=1")).text()).toBe("n 2\n")
    expect([(await get("/")).status, (await get("/metrics/x")).status]).toEqual([404, 404])
    expect((await get("/metrics", "POST")).status).toBe(405)
    expect((await get("/metrics", "DELETE")).status).toBe(405)
    expect(count).toBe(2)
  })

  test("what cannot be read now is status 500, without the reason", async () => {
    const { get } = start(() => {
      throw new Error("/var/lib/mvm/mvm.db: damaged")
    })
    const failed = await get("/metrics")
    expect([failed.status, await failed.text()]).toEqual([500, "the metrics cannot be read now\n"])
  })
})

describe("a unix socket", () => {
  test("is for its user and group, replaces the one an earlier life left, and goes at the end", () => {
    const path = join(folder(), "m.sock")
    serving(`unix:${path}`, () => "").close()
    expect(existsSync(path)).toBe(false)
    const left = Bun.listen({ unix: path, socket: { data() {} } })
    undo.push(() => left.stop(true))
    const server = serving(`unix:${path}`, () => "")
    expect((statSync(path).mode & 0o777).toString(8)).toBe("660")
    server.close()
    expect(existsSync(path)).toBe(false)
  })

  test("takes the place of no other file", () => {
    const path = join(folder(), "precious")
    writeFileSync(path, "x")
    expect(() => serving(`unix:${path}`, () => "")).toThrow("is there and is no socket")
    expect(statSync(path).size).toBe(1)
  })
})

test("a port in use is said", () => {
  const other = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  undo.push(() => other.stop(true))
  const { port } = other
  expect(() => serving(`127.0.0.1:${port}`, () => "")).toThrow(
    `cannot listen at 127.0.0.1:${port}: EADDRINUSE`,
  )
})
