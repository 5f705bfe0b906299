/** PostgreSQL and Redis, as their own clients and benchmarks meet them through `mvm guest forward`. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { join } from "node:path"
import { hostForFile } from "./host.ts"
import { Server, must, run } from "./real-programs.ts"

const host = hostForFile({ members: ["a", "b"] })
const servers: Server[] = []
let postgres: Server
let redis: Server

/** A forward of member a that its clients can reach. */
async function forward(listen: string, service: string): Promise<string> {
  const running = host().keep(
    host().spawn(["guest", "forward", listen, `b:${service}`, "--local", "a", "--mode", "666"]),
  )
  await running.says(`is service ${service} of b`)
  return running.stderr().split(" ")[1] ?? ""
}

beforeAll(async () => {
  postgres = await Server.postgres()
  redis = await Server.redis()
  servers.push(postgres, redis)
  await host().serves("b", "postgres", "--unix", join(postgres.folder, ".s.PGSQL.5432"))
  await host().serves("b", "redis", "--unix", join(redis.folder, "redis.sock"))
}, 120_000)

afterAll(async () => {
  for (const server of servers) await server.end()
}, 60_000)

test("psql reads and writes over a forwarded unix socket and a forwarded port", async () => {
  await forward(join(host().folder, ".s.PGSQL.5432"), "postgres")
  const [, port = ""] = (await forward("127.0.0.1:0", "postgres")).split(":")
  const psql = (at: readonly string[], sql: string): Promise<string> =>
    must(["psql", "-X", "-A", "-t", "-U", "postgres", ...at, "-c", sql])
  const [path, tcp] = [
    ["-h", host().folder],
    ["-h", "127.0.0.1", "-p", port],
  ] as const
  await psql(path, "create table words (id int primary key, word text)")
  await psql(tcp, "insert into words select i, repeat('x', 1000) from generate_series(1, 20000) i")
  expect(await psql(path, "select count(*), sum(length(word)) from words")).toBe("20000|20000000\n")
  expect((await psql(tcp, "select word from words")).length).toBe(20000 * 1001)
  const { status, stderr } = await run(["psql", "-X", "-U", "postgres", ...tcp, "-c", "select 1 / 0"])
  expect([status, stderr]).toEqual([1, "ERROR:  division by zero\n"])
}, 60_000)

test("pgbench with 8 clients has no failed transaction", async () => {
  const at = ["-h", host().folder, "-U", "postgres", "postgres"]
  const pgbench = (await must(["sh", "-c", "ls /usr/lib/postgresql/*/bin/pgbench"])).trim()
  await must([pgbench, "-i", "-q", "-s", "1", ...at])
  // The second time with a connection for each transaction.
  for (const [transactions, more] of [
    [100, []],
    [10, ["-C"]],
  ] as const) {
    const said = await must([pgbench, "-c", "8", "-j", "2", "-t", String(transactions), ...more, ...at])
    expect(said).toContain(
      `number of transactions actually processed: ${8 * transactions}/${8 * transactions}`,
    )
    expect(said).toContain("number of failed transactions: 0 (0.000%)")
  }
}, 120_000)

test("redis-benchmark runs through, pipelined and with many clients", async () => {
  const [, port = ""] = (await forward("127.0.0.1:0", "redis")).split(":")
  for (const words of [
    ["-c", "50", "-n", "5000"],
    ["-c", "8", "-n", "10000", "-P", "16", "-d", "4096"],
  ]) {
    const said = await must([
      "redis-benchmark",
      "-h",
      "127.0.0.1",
      "-p",
      port,
      "-t",
      "set,get,lpush",
      "--csv",
      ...words,
    ])
    const rows = said.trim().split("\n").slice(1)
    expect(rows.map((row) => row.split(",")[0])).toEqual(['"SET"', '"GET"', '"LPUSH"'])
    for (const row of rows) expect(Number(row.split(",")[1]?.replaceAll('"', ""))).toBeGreaterThan(0)
  }
}, 120_000)
