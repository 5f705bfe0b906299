/**
 * @module test/integration/setup
 *
 * What cannot be started or made says so, and leaves nothing half-made.
 */

import { afterAll, describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { TestHost, hostForFile } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

function said(outcome: { status: number; stderr: string }): [number, string] {
  return [outcome.status, outcome.stderr]
}

/** Everything below the state directory that VMs leave traces in. */
function traces(): string[] {
  const { state } = host()
  return ["run", "vms"].flatMap((folder) =>
    existsSync(join(state, folder))
      ? readdirSync(join(state, folder)).map((entry) => `${folder}/${entry}`)
      : [],
  )
}

describe("mvm serve", () => {
  test("refuses a state directory that another one serves, and leaves that one alone", async () => {
    const second = await host().run("serve")
    expect(said(second)).toEqual([1, expect.stringContaining("already")])
    expect((await host().status()).vms).toHaveLength(2)
  })

  test("names the greatest ring that fits the arena, with status 2", async () => {
    const outcome = await host().run(
      "serve",
      "--state",
      join(host().folder, "ring"),
      "--arena",
      "1M",
      "--ring",
      "1M",
    )
    expect(said(outcome)).toEqual([2, expect.stringContaining("the greatest that fits is 262144")])
    const odd = await host().run("serve", "--state", join(host().folder, "ring"), "--ring", "300K")
    expect(said(odd)).toEqual([2, expect.stringContaining("a power of two")])
    const arena = await host().run("serve", "--state", join(host().folder, "ring"), "--arena", "100M")
    expect(said(arena)).toEqual([2, expect.stringContaining("power of two")])
  })

  test("says that a state key is the wrong one, and changes nothing", async () => {
    const { folder, state } = host()
    const key = join(folder, "key")
    writeFileSync(key, new Uint8Array(32).fill(7), { mode: 0o600 })
    await host().stopServe()
    const wrong = await host().run("serve", "--state-key", key)
    expect(said(wrong)).toEqual([1, expect.stringMatching(/key/)])
    expect(wrong.stderr).toContain("hint: ")
    expect(wrong.stderr).not.toContain("07070707")
    const short = join(folder, "short")
    writeFileSync(short, "short", { mode: 0o600 })
    expect((await host().run("serve", "--state-key", short)).status).not.toBe(0)
    expect(existsSync(join(state, "control.sock"))).toBe(false)
    await host().serve()
    await Promise.all([host().linked("a"), host().linked("b")])
  })

  test("says what is wrong with its arena file", async () => {
    const path = join(host().folder, "none/arena")
    const outcome = await host().run("serve", "--state", join(host().folder, "x"), "--arena-file", path)
    expect(said(outcome)).toEqual([1, expect.stringContaining(`cannot open the arena ${path}: ENOENT`)])
    const open = join(host().folder, "open-arena")
    writeFileSync(open, "")
    chmodSync(open, 0o666)
    const readable = await host().run("serve", "--state", join(host().folder, "y"), "--arena-file", open)
    expect(said(readable)).toEqual([1, expect.stringContaining("is not a private file of this user")])
  })

  test("says that its state directory is no directory", async () => {
    const file = host().file("file", "")
    const outcome = await host().run("serve", "--state", file)
    expect(said(outcome)).toEqual([1, expect.stringContaining(file)])
    expect(outcome.stderr).not.toContain("    at ")
  })
})

describe("mvm vm create", () => {
  test("leaves nothing behind when the kernel or the initramfs cannot be read", async () => {
    const before = traces()
    const initrd = host().file("initrd", "x")
    const wrong: [string[], string][] = [
      [["--kernel", "/none/vmlinuz", "--initrd", initrd], "/none/vmlinuz"],
      [["--kernel", initrd, "--initrd", "/none/initrd"], "/none/initrd"],
      [["--kernel", host().folder, "--initrd", initrd], host().folder],
      [["--kernel", initrd, "--initrd", initrd, "--disk", "/none/disk"], "/none/disk"],
      [["--initrd", initrd], "--kernel"],
    ]
    for (const [words, named] of wrong) {
      const outcome = await host().run("vm", "create", "half", ...words)
      expect([outcome.status === 0, outcome.stderr]).toEqual([false, expect.stringContaining(named)])
      expect(outcome.stderr).not.toContain("    at ")
    }
    expect(traces()).toEqual(before)
    expect((await host().status()).vms.map(({ name }) => name)).toEqual(["a", "b"])
    expect(spawnSync("pgrep", ["-f", `${host().state}.*half`]).stdout.toString()).toBe("")
  })

  test("refuses a name that is taken", async () => {
    const outcome = await host().run("vm", "create", "a", "--local")
    expect(said(outcome)).toEqual([1, expect.stringContaining("there is already a VM a")])
  })
})

describe("mvm vm", () => {
  test("rm refuses a running VM and removes a stopped one, with all that was its", async () => {
    const before = traces()
    await host().must("vm", "create", "c", "--local")
    await host().agent("c")
    const running = await host().run("vm", "rm", "c")
    expect(said(running)).toEqual([1, expect.stringContaining("c is running")])
    expect(running.stderr).toContain("mvm vm stop c")
    await host().must("vm", "stop", "c")
    expect(said(await host().run("vm", "stop", "c"))).toEqual([
      1,
      expect.stringContaining("c is not running"),
    ])
    host().agentOf("c").kill("SIGTERM")
    expect(await host().agentOf("c").over()).toBe(0)
    await host().must("vm", "rm", "c")
    expect(traces()).toEqual(before)
  })

  test("names a VM that does not exist", async () => {
    for (const verb of ["start", "stop", "rm", "show", "console", "wait"]) {
      expect(said(await host().run("vm", verb, "none"))).toEqual([
        2,
        expect.stringContaining("there is no VM none"),
      ])
    }
  })
})

describe("without an MVM", () => {
  const nowhere = ["--state", "/nonexistent/mvm"]
  test.each(["status", "vm list", "audit verify", "guest status", "guest send b"])(
    "mvm %s ends with status 3 and says what to start",
    async (command) => {
      const words = command.split(" ")
      const socket = words[0] === "guest" ? ["--socket", "/nonexistent/agent.sock"] : nowhere
      const { status, stderr, stdout } = await host().run(...words, ...socket)
      expect([status, stderr.split("\n").length, stdout]).toEqual([3, 3, ""])
      expect(stderr).toContain("hint: start it with mvm")
    },
  )
})

describe("a full /dev/shm", () => {
  let small: TestHost | undefined
  const mount = join("/tmp", `mvi-shm-${process.pid}`)
  afterAll(async () => {
    await small?.end()
    spawnSync("umount", [mount])
    spawnSync("rmdir", [mount])
  })

  test("refuses the channel with a reason, takes nothing, and works again once there is room", async () => {
    mkdirSync(mount)
    expect(spawnSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", mount]).status).toBe(0)
    small = await TestHost.start({ members: ["a", "b"], serve: ["--arena-file", join(mount, "arena")] })
    const receiver = await small.recv("b", undefined)
    const sender = small.send("a", "b", new Uint8Array(10))
    expect(await sender.over()).toBe(1)
    expect(sender.stderr()).toContain("the host has no space left")
    await small.free()
    expect(String((await small.audit("refused")).at(-1)?.["message"])).toContain("/dev/shm is full")
    receiver.kill("SIGTERM")
    await receiver.over()
    spawnSync("mount", ["-o", "remount,size=64m", mount])
    const again = await small.recv("b", undefined)
    expect(await small.send("a", "b", new Uint8Array(10)).over()).toBe(0)
    expect(await again.over()).toBe(0)
  })
})

test("only VMs that the MVM starts itself start with the host; all of them are a name or --all", async () => {
  const local = await host().run("vm", "set", "a", "--autostart", "on")
  expect(said(local)).toEqual([2, expect.stringContaining("a is no VM that the MVM starts")])
  const made = await host().run("vm", "create", "c", "--local", "--autostart")
  expect(said(made)).toEqual([2, expect.stringContaining("c is no VM that the MVM starts")])
  expect((await host().status()).vms).toHaveLength(2)
  for (const words of [["start"], ["stop"], ["start", "a", "--all"], ["stop", "a", "--all"]]) {
    const outcome = await host().run("vm", ...words)
    expect(said(outcome)).toEqual([2, expect.stringContaining("a name, or --all")])
  }
  // They have local endpoints alone.
  expect(await host().must("vm", "start", "--all")).toBe("")
  expect(await host().must("vm", "stop", "--all")).toBe("")
  expect((await host().status()).vms.every(({ state }) => state === "running")).toBe(true)
})
