/**
 * @module test/e2e/boot
 *
 * What a guest of our image looks like from inside: its measurement log, its devices, and what its root cannot do.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { closeSync, openSync, readSync, writeSync } from "node:fs"
import { ARENA_BYTES, startVm, type TestVm } from "./vm.ts"

let vm: TestVm
beforeAll(async () => {
  vm = await startVm()
  console.log(`boot to the shell: ${vm.bootSeconds.toFixed(1)} s`)
  // The agent starts beside the shell; its first run hashes the whole executable.
  await vm.console.must("mvm --version")
}, 180_000)
afterAll(() => vm?.stop())

const sh = (command: string) => vm.console.must(command)

interface Entry {
  path: string
  digest: string
}

async function measurements(of = vm): Promise<Entry[]> {
  const text = await of.console.must("cat /sys/kernel/security/ima/ascii_runtime_measurements")
  return text.split("\n").map((line) => {
    const [, , , digest, ...path] = line.trimEnd().split(" ")
    return { path: path.join(" "), digest: digest! }
  })
}

const paths = async () => (await measurements()).map(({ path }) => path)

describe("the measurement log", () => {
  test("starts with what ran before our policy, then the policy", async () => {
    expect((await paths()).slice(0, 4)).toEqual([
      "boot_aggregate",
      "/init",
      "/bin/busybox",
      "/etc/ima/policy",
    ])
  })

  test("has the modules, the agent, its loader and its libraries", async () => {
    const seen = await paths()
    const modules = (await sh("cat /etc/modules")).split("\n").map((name) => `/lib/modules/${name}.ko`)
    const libraries = (await sh("find /lib64 /lib -name '*.so.*' -type f")).split("\n")
    expect(libraries.length).toBeGreaterThan(3)
    for (const path of [...modules, ...libraries, "/usr/bin/mvm"]) expect(seen).toContain(path)
  })

  test("holds the digests of the files", async () => {
    for (const { path, digest } of await measurements()) {
      if (path === "boot_aggregate") continue
      expect(`sha256:${(await sh(`sha256sum ${path}`)).split(" ")[0]}`).toBe(digest)
    }
  })

  test("has no plain data reads", async () => {
    await sh("echo data >/root/data; cat /root/data /etc/passwd; sh /etc/profile")
    expect(await paths()).not.toContain("/root/data")
  })

  test("logs a program run from tmpfs", async () => {
    await sh("cp /bin/busybox /tmp/busybox; /tmp/busybox true")
    expect(await paths()).toContain("/tmp/busybox")
  })

  test("logs a program that has no name any more", async () => {
    const before = (await measurements()).length
    // The tail makes it a file the log has not seen.
    await sh(
      "cp /bin/busybox /dev/shm/x; echo tail >>/dev/shm/x; exec 3</dev/shm/x; rm /dev/shm/x; /proc/self/fd/3 || :; exec 3<&-",
    )
    const added = (await measurements()).slice(before)
    expect(added.length).toBe(1)
    const known = new Set((await measurements()).slice(0, before).map(({ digest }) => digest))
    expect(known.has(added[0]!.digest)).toBe(false)
  })

  test("logs a script that is run, again after it changed", async () => {
    await sh("printf '#!/bin/sh\\necho one\\n' >/tmp/script; chmod +x /tmp/script; /tmp/script")
    await sh("printf '#!/bin/sh\\necho two\\n' >/tmp/script; /tmp/script")
    expect((await paths()).filter((path) => path === "/tmp/script").length).toBe(2)
  })

  test("replays to PCR 10 of the TPM's sha256 bank", async () => {
    const log = Buffer.from(await sh("base64 /sys/kernel/security/ima/binary_runtime_measurements"), "base64")
    expect(replay(log)).toBe((await sh("cat /sys/class/tpm/tpm0/pcr-sha256/10")).toLowerCase())
  })

  test("is the same in another boot of the same VM", async () => {
    const first = (await measurements()).filter(({ path }) => !/^\/(tmp|dev)\//.test(path))
    const other = await startVm({ uuid: vm.uuid })
    try {
      await other.console.must("mvm --version")
      const line = ({ path, digest }: Entry) => `${path} ${digest}`
      expect((await measurements(other)).map(line).sort()).toEqual(first.map(line).sort())
    } finally {
      await other.stop()
    }
  }, 180_000)
})

describe("root of a guest", () => {
  const fails = async (command: string) => {
    const { status, output } = await vm.console.run(command)
    expect(`${status !== 0} ${output}`).toStartWith("true")
    return output
  }

  test("cannot load another measurement policy", async () => {
    await sh("echo 'dont_measure func=BPRM_CHECK' >/tmp/policy")
    await fails("echo /tmp/policy >/sys/kernel/security/ima/policy")
  })

  test("is offered no suspend to memory and no hibernation", async () => {
    expect(await sh("cat /sys/power/mem_sleep")).toBe("[s2idle]")
    expect((await sh("cat /sys/power/state")).split(" ")).not.toContain("disk")
    await fails("echo deep >/sys/power/mem_sleep")
    await fails("echo disk >/sys/power/state")
    expect(await sh("dmesg | grep -c 'PM: (supports S0 S5)\\|ACPI: PM: (supports S0 S5)'")).toBe("1")
  })

  test("cannot trace another process", async () => {
    expect(await sh("cat /proc/sys/kernel/yama/ptrace_scope")).toBe("3")
    await fails("echo 0 >/proc/sys/kernel/yama/ptrace_scope")
  })

  test("cannot replace the kernel", async () => {
    expect(await sh("cat /proc/sys/kernel/kexec_load_disabled")).toBe("1")
    await fails("echo 0 >/proc/sys/kernel/kexec_load_disabled")
  })

  test("cannot load a module whose signature is gone", async () => {
    await sh("rmmod virtio_blk; head -c -64 /lib/modules/virtio_blk.ko >/tmp/virtio_blk.ko")
    await fails("insmod /tmp/virtio_blk.ko")
    await sh("insmod /lib/modules/virtio_blk.ko")
  })

  test("has a loopback interface and no network card", async () => {
    expect(await sh("ls /sys/class/net")).toBe("lo")
    expect(await sh("cat /sys/class/net/lo/operstate")).toBe("unknown")
  })
})

describe("the devices of a guest", () => {
  test("are a link port by our name", async () => {
    expect(await sh("cat /sys/class/virtio-ports/vport0p1/name")).toBe("org.mvm.0")
    await sh("test -c /dev/vport0p1")
  })

  test("are the arena, as a PCI device whose memory is the host's file", async () => {
    const found = await sh("grep -lx 0x1110 /sys/bus/pci/devices/*/device")
    const device = found.replace(/\/device$/, "")
    expect(await sh(`cat ${device}/vendor`)).toBe("0x1af4")
    expect(await sh(`stat -c %s ${device}/resource2`)).toBe(`${ARENA_BYTES}`)
    const address = (await sh(`sed -n 3p ${device}/resource`)).split(" ")[0]
    const arena = openSync(vm.arenaPath, "r+")
    try {
      writeSync(arena, Buffer.from([0x78, 0x56, 0x34, 0x12]), 0, 4, 0)
      await sh(`echo 1 >${device}/enable`)
      expect(await sh(`devmem ${address} 32`)).toBe("0x12345678")
      await sh(`devmem ${address} 32 0xcafef00d`)
      const word = Buffer.alloc(4)
      readSync(arena, word, 0, 4, 0)
      expect(word.readUInt32LE()).toBe(0xcafef00d)
    } finally {
      closeSync(arena)
    }
  })

  test("are a TPM 2.0 with the resource manager's device", async () => {
    expect(await sh("cat /sys/class/tpm/tpm0/tpm_version_major")).toBe("2")
    await sh("test -c /dev/tpmrm0")
  })
})

describe("the console", () => {
  test("carries output of many lines, statuses and odd characters unchanged", async () => {
    const text = Array.from({ length: 1000 }, (_, i) => `line ${i} $\`'"\\%`).join("\n")
    const { status, output } = await vm.console.run(`cat <<'END'\n${text}\nEND\nfalse`)
    expect(output).toBe(`${text}\n`)
    expect(status).toBe(1)
  })

  test("keeps the folder and variables between commands", async () => {
    await sh("cd /etc; seen=yes")
    expect(await sh('echo "$PWD $seen"')).toBe("/etc yes")
  })

  test("gives a command that takes too long back to its caller", async () => {
    const error = await vm.console
      .run("echo begun; sleep 600", { timeoutMs: 3000 })
      .catch((reason: Error) => reason)
    expect(String(error)).toContain("begun")
    vm.console.interrupt()
    expect(await sh("echo again")).toBe("again")
  })
})

describe("the end", () => {
  test("a reset ends qemu instead of starting a boot the manager did not see", async () => {
    await vm.console.run("reboot", { timeoutMs: 10_000 }).catch(() => {})
    expect((await vm.qemu.exited).code).toBe(0)
    expect(vm.events.filter(({ name }) => name === "SHUTDOWN").map(({ data }) => data["reason"])).toEqual([
      "guest-reset",
    ])
  })

  test("poweroff ends qemu", async () => {
    const other = await startVm()
    try {
      await other.console.run("poweroff", { timeoutMs: 10_000 }).catch(() => {})
      expect((await other.qemu.exited).code).toBe(0)
      expect(other.events.at(-1)?.data["reason"]).toBe("guest-shutdown")
    } finally {
      await other.stop()
    }
  }, 180_000)
})

/** SHA-256 over the template data of each entry; violations extend all-ones. @spec Linux security/integrity/ima */
function replay(log: Buffer): string {
  let pcr: Buffer = Buffer.alloc(32)
  for (let at = 0; at < log.length;) {
    const isViolation = log.subarray(at + 4, at + 24).every((byte) => byte === 0)
    at += 24
    at += 4 + log.readUInt32LE(at)
    const lengthBytes = log.readUInt32LE(at)
    const data = log.subarray(at + 4, at + 4 + lengthBytes)
    at += 4 + lengthBytes
    const digest = isViolation ? Buffer.alloc(32, 0xff) : new Bun.CryptoHasher("sha256").update(data).digest()
    pcr = new Bun.CryptoHasher("sha256").update(pcr).update(digest).digest()
  }
  return pcr.toString("hex")
}
