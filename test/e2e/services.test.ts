/**
 * @module test/e2e/services
 *
 * Services between two real VMs, which have no network card: PostgreSQL through `forward`, OpenSSH through `connect`,
 * tar in small writes, and `exec`.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import type { Console } from "./console.ts"
import { Background, Managed } from "./managed.ts"

const SLOW = { timeoutMs: 180_000 }
const DATA = "/var/lib/postgresql/data"

/** A service file of each kind. */
const SERVICES: Record<string, string> = {
  postgres: 'tcp = "127.0.0.1:5432"',
  ssh: 'command = ["/usr/sbin/sshd", "-i"]',
  untar: 'command = ["/bin/tar", "-x", "-C", "/tmp/unpacked"]\nmax_runs = 1',
  status: 'command = ["/bin/sh", "-c", "echo from $MVM_PEER; echo error >&2; exit $MVM_ARG"]',
}

let mvm: Managed
let web: Console
let db: Console

/** PostgreSQL of the VM itself, as its own user, until it answers. */
async function startPostgres(vm: Console): Promise<void> {
  const settings = ["listen_addresses=127.0.0.1", "jit=off", "fsync=off", "shared_buffers=16MB"]
  const server = `postgres -D ${DATA} ${settings.map((setting) => `-c ${setting}`).join(" ")}`
  await vm.must(`chown -R postgres:postgres ${DATA}; chmod 700 ${DATA}; mkdir -p /var/run/postgresql`)
  await vm.must("chown postgres /var/run/postgresql")
  await vm.must(`su postgres -c "cd /; exec ${server} >/tmp/postgres.log 2>&1" &`)
  const answers = "psql -U postgres -h 127.0.0.1 -c 'select 1' >/dev/null 2>&1"
  await vm.must(
    `for i in $(seq 60); do ${answers} && break; sleep 1; done; ${answers} || { cat /tmp/postgres.log; false; }`,
    SLOW,
  )
}

beforeAll(async () => {
  mvm = await Managed.start()
  for (const name of ["web", "db"]) await mvm.vm(name, { image: "guest-services" })
  await mvm.linked("web", "db")
  web = await mvm.console("web")
  db = await mvm.console("db")
  // What runs before the reference values are taken is part of them.
  await Promise.all([
    startPostgres(db),
    web.must("psql --version; pgbench --version; ssh -V; mvm guest status; tar --help 2>&1", SLOW),
  ])
  await db.must(
    "mkdir -p /run/sshd /etc/mvm/services.d /tmp/unpacked; /usr/sbin/sshd -t; mvm guest status",
    SLOW,
  )
  for (const [name, text] of Object.entries(SERVICES)) {
    await db.must(
      `echo ${Buffer.from(text).toString("base64")} | base64 -d >/etc/mvm/services.d/${name}.toml`,
    )
  }
  await mvm.learn("web", "db")
  await mvm.allow("web db")
  await Background.start(db, "services", "exec mvm guest serve --all")
  const served = Object.keys(SERVICES).length
  await db.must(
    `until [ "$(grep -c serving /tmp/background-services.out)" = ${served} ]; do sleep 0.3; done`,
    SLOW,
  )
}, 360_000)
afterAll(() => mvm?.stop(), 60_000)

test("psql and pgbench with 8 clients reach PostgreSQL of the other VM, and no transaction fails", async () => {
  await Background.start(web, "forward", "exec mvm guest forward 127.0.0.1:5432 db:postgres --wait 60s")
  await web.must(
    "until grep 'is service postgres of db' /tmp/background-forward.out; do sleep 0.3; done",
    SLOW,
  )
  const at = "-h 127.0.0.1 -U postgres"
  await web.must(`psql ${at} -qc 'create table t as select i, 0 as n from generate_series(1, 1000) i'`, SLOW)
  const script =
    "\\set i random(1, 1000)\\nbegin;\\nupdate t set n = n + 1 where i = :i;\\nselect n from t where i = :i;\\ncommit;\\n"
  await web.must(`printf '${script.replaceAll("\\set", "\\\\set")}' >/tmp/script.sql`)
  const said = await web.must(`pgbench ${at} -n -c 8 -t 10 -f /tmp/script.sql postgres`, SLOW)
  expect(said).toContain("number of transactions actually processed: 80/80")
  expect(said).toContain("number of failed transactions: 0 (0.000%)")
  expect(await web.must(`psql ${at} -Atc 'select sum(n) from t'`, SLOW)).toBe("80")
}, 300_000)

test("OpenSSH runs a command of the other VM through ProxyCommand", async () => {
  const proxy = "-o ProxyCommand='mvm guest connect db:ssh'"
  const ran = await web.run(`ssh ${proxy} root@db 'head -c 100000 | wc -c; exit 3' </usr/bin/mvm`, SLOW)
  expect(ran).toEqual({ status: 3, output: "100000\n" })
}, 240_000)

test("tar unpacks at the other VM what came in many small writes", async () => {
  const some = "head -c $((i * 100)) /bin/busybox >/tmp/tree/$i"
  await web.must(`mkdir -p /tmp/tree && for i in $(seq 100); do ${some} || exit 1; done`)
  const writes = "dd bs=64 2>/dev/null"
  await web.must(`tar -c -C /tmp tree | ${writes} | mvm guest connect db:untar`, SLOW)
  const sums = (vm: Console, folder: string): Promise<string> =>
    vm.must(`cd ${folder}; find tree -type f | sort | xargs sha256sum | sha256sum; cd`, SLOW)
  expect(await sums(db, "/tmp/unpacked")).toBe(await sums(web, "/tmp"))
  expect(Number(await web.must("tar -c -C /tmp tree | wc -c")) / 64).toBeGreaterThan(8_000)
}, 240_000)

test("exec has the run's streams and status, and each session its receipts", async () => {
  expect(await web.run("mvm guest exec db status 42 2>/dev/null", SLOW)).toEqual({
    status: 42,
    output: "from web\n",
  })
  expect(await web.run("mvm guest exec db status 0 >/dev/null", SLOW)).toEqual({
    status: 0,
    output: "error\n",
  })
  expect((await web.run("mvm guest exec db nothing", SLOW)).status).toBe(127)
  const receipts = await mvm.json<{ service: string }[]>("audit", "list", "--kind", "receipt")
  expect(receipts.filter(({ service }) => service === "status").length).toBe(4)
}, 240_000)
