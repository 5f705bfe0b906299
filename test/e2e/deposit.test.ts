/**
 * @module test/e2e/deposit
 *
 * Copies and deposits between real VMs: content for a VM that is off, under an MVM that dies meanwhile, and for one
 * that cannot be trusted when it comes for it.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import type { Console } from "./console.ts"
import { Background, Managed } from "./managed.ts"

const BYTES = 1_200_000
/** Not all alike, and the same at every run of it. */
const MESSAGE = `dd if=/usr/bin/mvm bs=1200000 skip=20 count=1 2>/dev/null`

let mvm: Managed
let alpha: Console
let beta: Console

beforeAll(async () => {
  mvm = await Managed.start()
  for (const name of ["alpha", "beta"]) await mvm.vm(name)
  await mvm.linked("alpha", "beta")
  await mvm.learn("alpha", "beta")
  await mvm.allow("alpha beta deposit")
  alpha = await mvm.console("alpha")
  beta = await mvm.console("beta")
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

function waiting(): Promise<{ id: string; state: string; source: string; target: string; bytes: number }[]> {
  return mvm.json("deposit", "list")
}

describe("two VMs", () => {
  test("copy a tree with its modes, times and links there and back", async () => {
    await beta.must("mkdir -p /tmp/shown")
    await Background.start(beta, "serve", "mvm guest serve --copy /tmp/shown")
    await alpha.must(
      "mkdir -p /tmp/tree/sub/empty; head -c 600000 /usr/bin/mvm >/tmp/tree/sub/large; " +
        "for n in $(seq 40); do echo $n >/tmp/tree/f$n; done; " +
        "ln -s sub/large /tmp/tree/link; chmod 640 /tmp/tree/f7; touch -d '2001-02-03 04:05:06' /tmp/tree/f8 /tmp/tree/sub",
    )
    await alpha.must("mvm guest cp -r /tmp/tree beta: --wait 30s --quiet", { timeoutMs: 120_000 })
    await alpha.must("mkdir /tmp/back; mvm guest cp -r beta:tree /tmp/back --quiet", { timeoutMs: 120_000 })
    const listing = (vm: Console, folder: string) =>
      vm.must(
        `cd ${folder} && find tree | sort | xargs stat -c '%n %a %F %s' && find tree -type f | sort | xargs sha256sum && ` +
          `stat -c %Y tree/f8 tree/sub && readlink tree/link; cd`,
      )
    const here = await listing(alpha, "/tmp")
    expect(await listing(beta, "/tmp/shown")).toBe(here)
    expect(await listing(alpha, "/tmp/back")).toBe(here)
    const again = await alpha.must("mvm guest cp -r /tmp/tree beta: 2>&1 | tail -n 1", { timeoutMs: 120_000 })
    expect(again).toContain("0 B sent in")
  }, 300_000)

  test("leave content for one that is off, which survives the MVM's death and comes after the next boot", async () => {
    const before = await mvm.show("beta")
    await mvm.must("vm", "stop", "beta")
    const left = await alpha.run(`${MESSAGE} | mvm guest deposit beta --quiet`, { timeoutMs: 120_000 })
    expect(left).toEqual({ status: 0, output: "" })
    await mvm.killServe()
    await mvm.startServe()
    expect(await waiting()).toMatchObject([
      { state: "waiting", source: "alpha", target: "beta", bytes: BYTES },
    ])
    await mvm.must("vm", "start", "beta")
    await mvm.bootedAgain("beta", before)
    beta = await mvm.console("beta")
    expect(await beta.must("mvm guest status")).toMatch(/alpha +default +1\.14 MiB/)
    const taken = await beta.run("mvm guest recv --deposited --output /tmp/got", { timeoutMs: 120_000 })
    expect([taken.status, taken.output]).toEqual([0, expect.stringContaining("it was trusted then")])
    expect(await beta.must("sha256sum </tmp/got")).toBe(await alpha.must(`${MESSAGE} | sha256sum`))
    expect(await waiting()).toEqual([])
    expect(await beta.must("mvm guest recv --deposited; echo $?")).toContain("3")
    const [receipt] = await mvm.json<object[]>("audit", "list", "--kind", "deposit_receipt")
    expect(receipt).toMatchObject({ source: "alpha", target: "beta", bytes: BYTES })
  }, 300_000)
})

test("a VM whose software is not trusted gets nothing that was left for it, until a trusted boot", async () => {
  expect((await alpha.run("echo for a trusted one | mvm guest deposit beta --quiet")).status).toBe(0)
  await beta.must("printf '#!/bin/sh\\necho new\\n' >/usr/bin/new; chmod +x /usr/bin/new; new")
  const refused = await beta.run("mvm guest recv --deposited")
  expect([refused.status, refused.output]).toEqual([4, expect.stringContaining("/usr/bin/new")])
  expect(refused.output).not.toContain("for a trusted one")
  expect(await waiting()).toMatchObject([{ state: "waiting" }])
  const before = await mvm.show("beta")
  await mvm.must("vm", "stop", "beta", "--force")
  await mvm.must("vm", "start", "beta")
  await mvm.bootedAgain("beta", before)
  beta = await mvm.console("beta")
  const taken = await beta.run("mvm guest recv --deposited --quiet")
  expect(taken).toEqual({ status: 0, output: "for a trusted one\n" })
}, 300_000)
