/**
 * @module test/integration/doctor
 *
 * `mvm doctor` on set-ups that are really broken, one thing at a time. Being right means: that thing is named with a
 * remedy, everything else is as it was on the good set-up, and the exit status says so.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { EXECUTE, READ, shareWith } from "../../src/platform/acl.ts"
import type { Finding } from "../../src/lib/health.ts"
import { finding, runDoctor, type Doctored } from "./doctored.ts"
import { hostForFile, rule } from "./host.ts"

const GOOD_POLICY = rule('service = "*"', 'from = "a"', 'to = "a"')
const host = hostForFile({ members: ["a"] })

let good: Doctored
beforeAll(async () => {
  host().writePolicy(GOOD_POLICY)
  good = await doctor()
}, 60_000)

const doctor = (before = "", env: Record<string, string> = {}): Promise<Doctored> =>
  runDoctor(host(), ["doctor", "--arena", "64M"], { before, env })

/** What is worse than on the good set-up. */
function worse({ findings }: Doctored): string[] {
  const before = new Set(good.findings.filter(({ level }) => level !== "ok").map(({ text }) => text))
  return findings
    .filter(({ level, text }) => level !== "ok" && !before.has(text))
    .map(({ level, check }) => `${level} ${check}`)
}

/** A search path without a shell in it. */
const doctorWithPath = (path: string): Promise<Doctored> =>
  runDoctor(host(), ["doctor", "--arena", "64M"], { env: { PATH: path } })

/** A search path that has QEMU and swtpm but for `missing`. */
function pathWithout(missing: string): string {
  const folder = join(host().folder, `without-${missing}`)
  mkdirSync(folder, { recursive: true })
  for (const name of ["qemu-system-x86_64", "qemu-system-aarch64", "swtpm"]) {
    const path = Bun.which(name)
    if (path && !name.startsWith(missing)) symlinkSync(path, join(folder, name))
  }
  return folder
}

describe("a good host", () => {
  test("has no failure and status 0", () => {
    expect(good.findings.filter(({ level }) => level === "fail")).toEqual([])
    expect(good.status).toBe(0)
  })

  test("is looked at in every way", () => {
    expect(new Set(good.findings.map(({ check }) => check))).toEqual(
      new Set([
        ...["kernel", "kvm", "qemu", "swtpm", "firmware", "shared memory", "arena", "state", "disk space"],
        ...["state key", "daemon", "user", "limits", "policy", "vm"],
      ]),
    )
  })

  test("is said in a line each, with what is to be done below and the sum at the end", async () => {
    const { status, stdout } = await host().run("doctor")
    expect(status).toBe(0)
    expect(stdout).toMatch(/^ok {4}daemon +pid \d+, up /m)
    expect(stdout).toMatch(/\n\d+ checks ok, \d+ to look at, 0 failed\n$/)
  })

  test("gives a remedy for everything that is not in order", () => {
    for (const { level, remedy } of good.findings) expect(remedy === undefined).toBe(level === "ok")
  })
})

describe("with the daemon up, the doctor names", () => {
  test("the daemon, when it stands still", async () => {
    const { pid } = await host().ask<{ pid: number }>("status")
    process.kill(pid, "SIGSTOP")
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([1, ["fail daemon"]])
      expect(finding(found, "daemon").text).toContain("does not answer within 5 s")
    } finally {
      process.kill(pid, "SIGCONT")
    }
  })

  test("a state directory that others can enter", async () => {
    chmodSync(host().state, 0o755)
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([1, ["fail state"]])
      expect(finding(found, "state").remedy).toBe(`chmod 700 ${host().state}`)
    } finally {
      chmodSync(host().state, 0o700)
    }
  })

  test("no harm in the way of another user's QEMU through the state", async () => {
    const { state } = host()
    shareWith(state, [{ uid: 1, permissions: EXECUTE }])
    try {
      expect(worse(await doctor())).toEqual([])
      shareWith(state, [{ uid: 1, permissions: READ | EXECUTE }])
      expect(worse(await doctor())).toEqual(["fail state"])
    } finally {
      shareWith(state, [])
    }
  })

  test("a state directory of another user", async () => {
    chownSync(host().state, 1, 1)
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([1, ["fail state"]])
      expect(finding(found, "state").text).toContain("belongs to uid 1")
    } finally {
      chownSync(host().state, 0, 0)
    }
  })

  test("a /dev/shm that is full", async () => {
    const found = await doctor("mount -t tmpfs -o size=1M tmpfs /dev/shm")
    expect([found.status, worse(found)]).toEqual([1, ["fail shared memory"]])
    expect(finding(found, "shared memory").text).toContain("no room for a channel")
  })

  test("a /dev/shm that holds the arena, and not all that channels may have of their own", async () => {
    const found = await doctor("mount -t tmpfs -o size=512M tmpfs /dev/shm")
    expect([found.status, worse(found)]).toEqual([0, ["warn shared memory"]])
    expect(finding(found, "shared memory").text).toContain("1.00 GiB of channels' own memory")
  })

  test("a /dev/shm that is smaller than the arena", async () => {
    const found = await doctor("mount -t tmpfs -o size=32M tmpfs /dev/shm")
    expect([found.status, worse(found)]).toEqual([0, ["warn shared memory"]])
    expect(finding(found, "shared memory").remedy).toContain("mount -o remount,size=1152M /dev/shm")
  })

  test("a policy that is broken, with its place", async () => {
    host().writePolicy(`${GOOD_POLICY}\nnonsense\n`)
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([1, ["fail policy"]])
      expect(finding(found, "policy").text).toMatch(/policy\.toml:\d+:\d+: /)
    } finally {
      host().writePolicy(GOOD_POLICY)
    }
  })

  test("a policy that is not there", async () => {
    rmSync(join(host().state, "policy.toml"))
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([1, ["fail policy"]])
    } finally {
      host().writePolicy(GOOD_POLICY)
    }
  })

  test("rules that name nobody, or everybody", async () => {
    host().writePolicy(`${rule('service = "*"', 'from = "nobody"', 'to = "a"')}${GOOD_POLICY}`)
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([0, ["warn policy"]])
      expect(finding(found, "policy").text).toContain(":1: from: there is no VM nobody")
    } finally {
      host().writePolicy(GOOD_POLICY)
    }
  })

  test("a member without a reference table", async () => {
    await host().must("vm", "create", "b", "--local")
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([1, ["fail vm"]])
      expect(finding(found, "vm").text).toContain("b has no reference table")
      expect(finding(found, "vm").remedy).toContain("mvm measure learn b")
    } finally {
      await host().must("vm", "rm", "b")
    }
  })

  test("a member that ran what is not in its table", async () => {
    const other = join(host().folder, "other")
    copyFileSync(host().mvm, other)
    const { status } = await host().runWith({ program: other }, "guest", "status", "--local", "a")
    expect(status).toBe(0)
    await host().run("measure", "run", "a")
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([0, ["warn vm"]])
      expect(finding(found, "vm").remedy).toBe("mvm measure explain a")
    } finally {
      await host().must("measure", "approve", "a", other, "--reason", "a copy")
    }
  })

  test("a VM whose kernel went away", async () => {
    const kernel = host().file("vmlinuz", "kernel")
    const initrd = host().file("initrd", "initrd")
    await host().must("vm", "create", "c", "--kernel", kernel, "--initrd", initrd)
    await host().must(
      "measure",
      "import",
      "c",
      host().file("sums", `${"ab".repeat(32)}  /init\n`),
      "--format",
      "sha256sum",
    )
    rmSync(kernel)
    try {
      const found = await doctor()
      expect([found.status, worse(found)]).toEqual([1, ["fail vm"]])
      expect(finding(found, "vm").text).toBe(`c: kernel: ${kernel}: no such file`)
    } finally {
      await host().must("vm", "rm", "c")
    }
  })

  test.each([
    ["qemu", "qemu", "apt-get install qemu-system-"],
    ["swtpm", "swtpm", "apt-get install swtpm"],
  ])("a search path without %s", async (missing, check, remedy) => {
    const bare = await doctorWithPath(pathWithout(missing))
    expect([bare.status, worse(bare)]).toEqual([1, [`fail ${check}`]])
    expect(finding(bare, check).remedy).toContain(remedy)
  })

  test("a QEMU that does not start", async () => {
    const folder = pathWithout("qemu-none")
    for (const name of ["qemu-system-x86_64", "qemu-system-aarch64"]) {
      rmSync(join(folder, name), { force: true })
      symlinkSync("/bin/false", join(folder, name))
    }
    const found = await doctorWithPath(folder)
    expect([found.status, worse(found)]).toEqual([1, ["fail qemu"]])
  })

  test("no accelerator that the doctor was started with: the daemon's counts", async () => {
    expect(worse(await doctor("", { MVM_ACCEL: "xen" }))).toEqual([])
  })
})

describe("with the daemon down, the doctor names", () => {
  let down: Doctored
  beforeAll(async () => {
    await host().ask("vm.stop", { name: "a", force: true })
    expect(await host().stopServe()).toBe(0)
    down = await doctor()
  }, 60_000)
  afterAll(async () => {
    await host().serve()
  }, 60_000)

  test("the daemon, and how to start it", () => {
    expect([down.status, worse(down)]).toEqual([1, ["fail daemon"]])
    expect(finding(down, "daemon").remedy).toContain("mvm")
  })

  test("an accelerator that there is not", async () => {
    expect(worse(await doctor("", { MVM_ACCEL: "xen" }))).toEqual(["fail kvm", "fail daemon"])
  })

  test("no other failure for a state of another user, who the daemon is when it runs", async () => {
    const owned = (owner: string): void => {
      expect(Bun.spawnSync(["chown", "-R", owner, host().state]).exitCode).toBe(0)
    }
    owned("daemon:daemon")
    try {
      // /dev/kvm may be closed to that user.
      expect(worse(await doctor()).filter((one) => one !== "warn kvm")).toEqual(["fail daemon"])
    } finally {
      owned("root:root")
    }
  })

  test("a state key of another state", async () => {
    const key = join(host().state, "state.key")
    renameSync(key, `${key}.right`)
    writeFileSync(key, crypto.getRandomValues(new Uint8Array(32)), { mode: 0o600 })
    try {
      const found = await doctor()
      expect(worse(found)).toEqual(["fail state key", "fail daemon"])
      expect(finding(found, "state key").text).toContain("not the key this state directory was made with")
    } finally {
      renameSync(`${key}.right`, key)
    }
  })

  test("a state key that is gone, and one that others can read", async () => {
    const key = join(host().state, "state.key")
    renameSync(key, `${key}.right`)
    try {
      expect(finding(await doctor(), "state key").text).toContain("the state key is gone")
    } finally {
      renameSync(`${key}.right`, key)
    }
    chmodSync(key, 0o644)
    try {
      expect(finding(await doctor(), "state key").text).toContain("other users can reach this file")
    } finally {
      chmodSync(key, 0o600)
    }
  })

  test("an arena file of another size, left from before", async () => {
    const path = finding({ status: 0, findings: down.findings.map(asWrong) }, "arena").text.split(" ")[0]!
    const fd = openSync(path, "w", 0o600)
    ftruncateSync(fd, 2 ** 20)
    closeSync(fd)
    try {
      const found = await doctor()
      expect(worse(found)).toEqual(["fail arena", "fail daemon"])
      expect(finding(found, "arena").remedy).toContain("--arena 1M")
    } finally {
      rmSync(path)
    }
  })

  test("a full disk", async () => {
    const { state } = host()
    const found = await doctor(
      `mount -t tmpfs -o size=1M,mode=700 tmpfs /mnt
       cp -p ${state}/policy.toml ${state}/state.key ${state}/state.check /mnt
       mount --move /mnt ${state}`,
    )
    expect(worse(found)).toEqual(["fail disk space", "fail daemon"])
  })

  test("a limit of open files that is too low for it", async () => {
    expect(worse(await doctor("ulimit -n 512"))).toEqual(["fail daemon", "warn limits"])
  })

  test("a control socket that nobody answers", async () => {
    const socket = join(host().state, "control.sock")
    const listener = Bun.listen({ unix: socket, socket: { data() {} } })
    renameSync(socket, `${socket}.kept`)
    listener.stop(true)
    renameSync(`${socket}.kept`, socket)
    try {
      const found = await doctor()
      expect(worse(found)).toEqual(["fail daemon"])
    } finally {
      rmSync(socket, { force: true })
    }
  })
})

function asWrong(found: Finding): Finding {
  return { ...found, level: "fail" }
}

test("a state directory that is not there yet is no failure of it", async () => {
  const child = Bun.spawnSync([host().mvm, "doctor", "--json", "--state", join(host().folder, "none")])
  const { findings } = JSON.parse(child.stdout.toString()) as { findings: Finding[] }
  expect(findings).toContainEqual(expect.objectContaining({ check: "state", level: "warn" }))
  expect(findings).toContainEqual(expect.objectContaining({ check: "daemon", level: "fail" }))
})
