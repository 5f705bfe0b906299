/**
 * @module test/e2e/channel
 *
 * The main job between real VMs under a real MVM, and what happens to it when a part dies.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { isRunning, identifyProcess } from "../../src/platform/process.ts"
import type { Console } from "./console.ts"
import { Background, Managed, until, type VmState } from "./managed.ts"

/** The guest's own executable: more than 64 MiB, and a file like any other. */
const FILE = "/usr/bin/mvm"

let mvm: Managed
let alpha: Console
let beta: Console
let gamma: Console

beforeAll(async () => {
  mvm = await Managed.start()
  const names = ["alpha", "beta", "gamma"]
  for (const name of names) await mvm.vm(name)
  await mvm.linked(...names)
  await mvm.learn(...names)
  await mvm.allow("alpha beta", "beta alpha")
  alpha = await mvm.console("alpha")
  beta = await mvm.console("beta")
  gamma = await mvm.console("gamma")
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

interface Receipt {
  by: string
  peer: string
  lengthBytes: number
}

async function lastReceipt(): Promise<Receipt | undefined> {
  return (await mvm.json<Receipt[]>("audit", "list", "--kind", "receipt")).at(-1)
}

/** A few bytes from alpha to beta. */
async function sendHello(): Promise<void> {
  const receiving = beta.run("mvm guest recv alpha --quiet")
  const sent = await alpha.run("echo hello | mvm guest send beta --wait 60s --quiet")
  expect(sent).toEqual({ status: 0, output: "" })
  expect(await receiving).toEqual({ status: 0, output: "hello\n" })
}

describe("two VMs", () => {
  test("have no network card, only each its link, its vTPM and the arena", async () => {
    for (const vm of [alpha, beta]) {
      expect(
        await vm.must("for d in /sys/bus/pci/devices/*; do cat $d/class; done | grep -c ^0x02 || :"),
      ).toBe("0")
      expect(await vm.must("ls /sys/class/net")).toBe("lo")
      const status = await vm.must("mvm guest status")
      expect(status).toContain("linked:          true")
      expect(status).toMatch(/mapping: +(resource2|resource2_wc|\/dev\/mem) of 0000:/)
    }
  })

  test("pass a file of more than 64 MiB with equal digests and a receipt in the audit log", async () => {
    const receiving = beta.run("mvm guest recv alpha --quiet | sha256sum", { timeoutMs: 180_000 })
    const sent = await alpha.run(`mvm guest send beta ${FILE} --wait 60s --quiet`, { timeoutMs: 180_000 })
    expect(sent).toEqual({ status: 0, output: "" })
    const lengthBytes = Number(await alpha.must(`stat -c %s ${FILE}`))
    expect(lengthBytes).toBeGreaterThan(64 << 20)
    expect((await receiving).output).toBe(`${await alpha.must(`sha256sum <${FILE}`)}\n`)
    expect(await lastReceipt()).toMatchObject({ by: "beta", peer: "alpha", lengthBytes })
  }, 300_000)

  test("pass a folder through tar, in the other direction too", async () => {
    const made = "mkdir -p /tmp/tree/sub; echo one >/tmp/tree/a; head -c 70000 /bin/busybox >/tmp/tree/sub/b"
    await beta.must(`${made}; ln -s a /tmp/tree/link`)
    const receiving = alpha.run("mkdir /tmp/got; mvm guest recv beta --quiet | tar x -C /tmp/got")
    const sent = await beta.run("tar c -C /tmp tree | mvm guest send alpha --wait 60s --quiet")
    expect(sent).toEqual({ status: 0, output: "" })
    expect(await receiving).toEqual({ status: 0, output: "" })
    const list = (vm: Console, folder: string) =>
      vm.must(`cd ${folder}; find tree -type f -o -type l | sort | xargs sha256sum; readlink tree/link; cd`)
    expect(await list(alpha, "/tmp/got")).toBe(await list(beta, "/tmp"))
  })

  test("need no receiver yet: send --wait waits for it", async () => {
    const sending = await Background.start(
      alpha,
      "early",
      "echo early | mvm guest send beta --wait 60s --json",
    )
    // Only once the MVM holds the request does the receiver begin.
    await until("the request", async () => (await alpha.must("pidof mvm")).split(" ").length === 2)
    const got = await beta.run("mvm guest recv --json 2>/tmp/facts")
    expect(got).toEqual({ status: 0, output: "early\n" })
    expect(await sending.end()).toMatchObject({ status: 0 })
    const facts = JSON.parse((await beta.must("tail -n 1 /tmp/facts")).trim()) as Record<string, unknown>
    expect(facts).toMatchObject({
      peer: "alpha",
      peerVerdict: "trusted",
      peerMeasurement: "kernel",
      peerProgram: FILE,
      bytes: 6,
    })
  })

  test("without a receiver end with status 3", async () => {
    expect((await alpha.run("echo x | mvm guest send beta")).status).toBe(3)
    expect((await alpha.run("echo x | mvm guest send beta --wait 1s")).status).toBe(3)
  })
})

describe("a VM that the policy does not name", () => {
  test("gets status 6, whether the target waits or not", async () => {
    const waiting = await Background.start(beta, "recv", "timeout 4 mvm guest recv --quiet")
    const { status, output } = await gamma.run("echo x | mvm guest send beta --wait 5s")
    expect(status).toBe(6)
    expect(output).toContain("the policy of this host denies it")
    expect((await gamma.run("mvm guest recv beta --request")).status).toBe(6)
    expect((await waiting.end()).output).not.toContain("x")
  })

  test("cannot take the name of one that it does", async () => {
    await gamma.must("hostname alpha")
    const { status } = await gamma.run("echo x | mvm guest send beta")
    expect(status).toBe(6)
    expect(await gamma.must("mvm guest status")).toContain("name:            gamma")
    const again = await mvm.run("vm", "create", "alpha", "--local")
    expect(again.status).toBe(1)
    expect(again.errors).toContain("there is already a VM alpha")
  })
})

describe("a transfer", () => {
  test("outlives a killed MVM: started again, it finds VMs and channel, and the transfer ends with a receipt", async () => {
    const before = await Promise.all(["alpha", "beta"].map((name) => mvm.show(name)))
    await alpha.must("mkfifo /tmp/rest")
    const receiving = await Background.start(beta, "long", "mvm guest recv alpha --quiet | sha256sum")
    const sending = await Background.start(
      alpha,
      "long",
      `{ head -c 8000000 ${FILE}; cat /tmp/rest; } | mvm guest send beta --wait 60s --quiet`,
    )
    await until("the channel", async () => {
      const channels = await mvm.json<{ state: string }[]>("channel", "list")
      return channels.some(({ state }) => state === "open")
    })
    await mvm.killServe()
    expect((await mvm.run("vm", "list")).status).toBe(3)
    await mvm.startServe()
    await mvm.linked("alpha", "beta", "gamma")
    const after = await Promise.all(["alpha", "beta"].map((name) => mvm.show(name)))
    for (const [index, { qemuPid, bootId }] of after.entries()) {
      expect({ qemuPid, bootId }).toEqual({ qemuPid: before[index]!.qemuPid, bootId: before[index]!.bootId })
    }
    await alpha.must("echo end >/tmp/rest")
    expect(await sending.end({ timeoutMs: 180_000 })).toEqual({ status: 0, output: "" })
    const digest = (await alpha.must(`{ head -c 8000000 ${FILE}; echo end; } | sha256sum`)).split(" ")[0]
    expect(await receiving.end()).toEqual({ status: 0, output: `${digest}  -` })
    expect(await lastReceipt()).toMatchObject({ by: "beta", peer: "alpha" })
    expect((await mvm.run("audit", "verify")).status).toBe(0)
  }, 300_000)

  test("ends with status 3 when the agent of the other VM is killed, and works again after", async () => {
    const agent = await alpha.must("pidof mvm")
    const receiving = await Background.start(beta, "cut", "mvm guest recv alpha --quiet >/dev/null")
    await Background.start(alpha, "cut", "{ echo begin; sleep 60; } | mvm guest send beta --wait 60s --quiet")
    await until("the channel", async () => {
      const channels = await mvm.json<{ state: string }[]>("channel", "list")
      return channels.some(({ state }) => state === "open")
    })
    await alpha.must(`kill -9 ${agent}`)
    await alpha.must(
      `until mvm guest status --json 2>/dev/null | grep -q '"linked":true'; do sleep 0.3; done; [ "$(pidof mvm)" != ${agent} ]`,
    )
    expect(await receiving.end()).toMatchObject({ status: 3 })
    await sendHello()
  })
})

describe("a VM's end", () => {
  /** The next boot of `name` is trusted without anybody's doing. */
  async function expectTrustedBoot(name: string, before: VmState): Promise<VmState> {
    const now = await mvm.bootedAgain(name, before)
    expect({ verdict: now.verdict, reason: now.reason }).toEqual({ verdict: "trusted", reason: null })
    return now
  }

  test("by its own reboot is seen, and the VM comes back trusted; so is a killed vTPM, and it is said", async () => {
    const [rebooted, robbed] = await Promise.all([mvm.show("alpha"), mvm.show("gamma")])
    await alpha.must("(sleep 0.2; reboot) &")
    process.kill(robbed.vtpmPid!, "SIGKILL")
    const [, restarted] = await Promise.all([
      expectTrustedBoot("alpha", rebooted),
      expectTrustedBoot("gamma", robbed),
    ])
    expect(restarted.vtpmPid).not.toBe(robbed.vtpmPid)
    const exits = await mvm.json<{ vm: string; reason: string }[]>("audit", "list", "--kind", "vm_exit")
    expect(exits.map(({ vm, reason }) => `${vm}: ${reason}`).sort()).toEqual([
      "alpha: guest reset",
      "gamma: its vTPM (swtpm) ended",
    ])
    expect(mvm.serveLog()).toMatch(/vm_restart.*gamma.*its vTPM \(swtpm\) ended/)
    alpha = await mvm.console("alpha")
    await sendHello()
  }, 300_000)

  test("by vm stop is an orderly shutdown, and vm start boots it trusted", async () => {
    const before = await mvm.show("beta")
    await mvm.must("vm", "stop", "beta")
    expect((await mvm.show("beta")).state).toBe("stopped")
    const log = await Bun.file((before as unknown as { consoleLog: string }).consoleLog).text()
    expect(log).toContain("reboot: Power down")
    await mvm.must("vm", "start", "beta")
    await expectTrustedBoot("beta", before)
    beta = await mvm.console("beta")
    await sendHello()
  }, 300_000)

  test("by vm stop --force leaves no process and no socket", async () => {
    const { qemuPid, vtpmPid } = await mvm.show("gamma")
    const processes = [qemuPid, vtpmPid].map((pid) => identifyProcess(pid!)!)
    await mvm.must("vm", "stop", "gamma", "--force")
    expect(processes.map(isRunning)).toEqual([false, false])
    const console = await mvm.run("vm", "console", "gamma")
    expect(console.status).toBe(1)
    expect(console.errors).toContain("gamma has no console: it is not running")
  })

  test("comes with the host's, and its start with the host's start, where that is set", async () => {
    await mvm.must("vm", "set", "beta", "--autostart", "on")
    const before = await mvm.show("beta")
    const stopped = await mvm.must("vm", "stop", "--all")
    expect(stopped.split("\n").toSorted()).toEqual(["", "alpha: stopped", "beta: stopped"])
    expect(await mvm.must("vm", "stop", "--all")).toBe("")
    expect(await mvm.must("vm", "start", "--all")).toBe("beta: started\n")
    await expectTrustedBoot("beta", before)
    expect((await mvm.show("alpha")).state).toBe("stopped")
    expect(await mvm.must("vm", "start", "--all")).toBe("")
  }, 300_000)
})
