/**
 * @module test/e2e/libvirt
 *
 * VMs that others start: domains of a real libvirt, adopted, and a QEMU started by hand with the arguments that the MVM
 * prints.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import { Log } from "../../src/lib/log.ts"
import { LibvirtMachine } from "../../src/mvm/vm/followed/libvirt-machine.ts"
import { VirshEvents } from "../../src/platform/libvirt/events.ts"
import { Virsh } from "../../src/platform/libvirt/virsh.ts"
import { kernelAppend } from "../../src/platform/qemu-args.ts"
import { Qmp } from "../../src/platform/qmp.ts"
import { Console } from "./console.ts"
import { Libvirtd } from "./libvirtd.ts"
import { Managed, until } from "./managed.ts"

const FILE = "/bin/busybox"

let virt: Libvirtd
let mvm: Managed
let alpha: Console
let beta: Console

const adopt = (name: string, domain: string, ...more: string[]) => {
  return mvm.run("vm", "create", name, "--libvirt", domain, "--connect", virt.uri, ...more)
}

beforeAll(async () => {
  virt = await Libvirtd.start()
  mvm = await Managed.start()
  await virt.define("alpha.example")
  await virt.define("beta.example", { machine: "q35" })
}, 120_000)
afterAll(async () => {
  await mvm?.stop()
  await virt?.stop()
}, 120_000)

/** Sends a file and compares. @returns what memory it went through */
async function pass(from: Console, [to, target]: [Console, string]): Promise<string> {
  const receiving = to.run("mvm guest recv --quiet | sha256sum", { timeoutMs: 180_000 })
  const command = `mvm guest send ${target} ${FILE} --wait 60s --quiet --json`
  const { status, output } = await from.run(command, { timeoutMs: 180_000 })
  expect({ status, output }).toMatchObject({ status: 0 })
  expect((await receiving).output).toBe(`${await from.must(`sha256sum <${FILE}`)}\n`)
  return (JSON.parse(output.trim().split("\n").at(-1) ?? "") as { isolation: string }).isolation
}

describe("a domain of libvirt", () => {
  test("is shown what it lacks, and left as it is, without --apply", async () => {
    const before = await virt.xml("alpha.example")
    const { status, output } = await adopt("alpha", "alpha.example")
    expect(status).toBe(0)
    expect(output).toContain("<shmem name='mvm-")
    expect(output).toContain("<tpm model='tpm-crb'><backend type='external'>")
    expect(output).toContain("name='org.mvm.0'")
    expect(await virt.xml("alpha.example")).toBe(before)
    expect(await mvm.must("vm", "libvirt-xml", "alpha")).toBe(output)
  })

  test("gets its elements with --apply, once, and keeps what was in it", async () => {
    expect(await adopt("alpha", "alpha.example", "--apply")).toMatchObject({ status: 0 })
    expect(await adopt("beta", "beta.example", "--apply")).toMatchObject({
      status: 0,
      errors: expect.stringContaining(
        "virsh reboot now powers beta.example off: use mvm vm reboot beta",
      ) as string,
    })
    const xml = await virt.xml("alpha.example")
    for (const part of ["ivshmem-plain", "org.mvm.0", "<on_reboot>destroy", "suspend-to-mem enabled='no'"]) {
      expect(xml).toContain(part)
    }
    expect(await adopt("alpha", "alpha.example", "--apply")).toMatchObject({ status: 0 })
    expect(await virt.xml("alpha.example")).toBe(xml)
    expect(await adopt("other", "alpha.example", "--apply")).toMatchObject({
      status: 1,
      errors: expect.stringContaining("is the VM alpha already") as string,
    })
  })

  test("sends a file to another one", async () => {
    await mvm.must("vm", "start", "alpha")
    // As from virt-manager: the MVM hears of it by itself.
    await virt.must("start", "beta.example")
    await mvm.linked("alpha", "beta")
    await mvm.learn("alpha", "beta")
    await mvm.allow("* *")
    alpha = await virt.console("alpha.example")
    beta = await virt.console("beta.example")
    // Through memory that libvirt's QEMUs were given for this alone.
    expect(await pass(alpha, [beta, "beta"])).toBe("dedicated")
    expect(await mvm.show("alpha")).toMatchObject({ kind: "libvirt", state: "running", verdict: "trusted" })
  }, 240_000)

  test("is followed when libvirt ends it and starts it again at once", async () => {
    const before = await mvm.show("beta")
    await virt.must("destroy", "beta.example")
    await virt.must("start", "beta.example")
    await mvm.bootedAgain("beta", before)
    beta = await virt.console("beta.example")
    await pass(beta, [alpha, "alpha"])
  }, 240_000)

  test("goes on with an MVM that was killed and started again, and is the same boot to it", async () => {
    const before = await mvm.show("beta")
    await mvm.killServe()
    await mvm.startServe()
    await mvm.linked("alpha", "beta")
    expect(await mvm.judged("beta")).toBe("trusted")
    expect(await mvm.show("beta")).toMatchObject({ bootId: before.bootId, qemuPid: before.qemuPid })
    await pass(alpha, [beta, "beta"])
  }, 240_000)

  test("is looked at again when libvirt was away: memory that its guest threw out meanwhile is nobody's", async () => {
    const idle = async (): Promise<number> => {
      return (await mvm.json<{ dedicated: { idle: number } }>("status")).dedicated.idle
    }
    expect(await pass(alpha, [beta, "beta"])).toBe("dedicated")
    expect(await idle()).toBe(1)
    await virt.killDaemon()
    const thrown = await beta.must(`arena=$(cut -d ' ' -f 2 /run/mvm/arena-device)
      for slot in /sys/bus/pci/slots/*; do
        device=$(cat $slot/address).0
        [ $device != $arena ] && [ "$(cat /sys/bus/pci/devices/$device/device 2>/dev/null)" = 0x1110 ] || continue
        echo 0 >$slot/power && echo $device
      done; :`)
    expect(thrown).not.toBe("")
    await Bun.sleep(1000)
    expect(await idle()).toBe(1)
    await virt.startDaemon()
    await until("the memory to be gone", async () => (await idle()) === 0)
    expect(await pass(alpha, [beta, "beta"])).toBe("dedicated")
  }, 240_000)

  test("that reboots comes back as a boot that the MVM saw", async () => {
    const before = await mvm.show("beta")
    await beta.run("reboot -f", { timeoutMs: 5000 }).catch(() => undefined)
    await mvm.bootedAgain("beta", before)
    expect((await mvm.show("beta")).verdict).toBe("trusted")
  }, 240_000)

  test("is rebooted in order by the MVM, where virsh reboot powers it off", async () => {
    const before = await mvm.show("beta")
    await mvm.must("vm", "reboot", "beta", "--wait", "3m")
    const after = await mvm.bootedAgain("beta", before)
    expect([after.verdict, after.qemuPid === before.qemuPid]).toEqual(["trusted", false])
    const [last] = await mvm.json<{ vm: string }[]>("audit", "list", "--kind", "vm_stop")
    expect(last?.vm).toBe("beta")
    await virt.must("reboot", "beta.example", "--mode", "acpi")
    await until("beta to be off", async () => (await virt.state("beta.example")) === "shut off")
    await mvm.must("vm", "start", "beta")
    await mvm.linked("beta")
  }, 240_000)

  test("that libvirt could not end is still followed: it ends with its vTPM once libvirt answers, and boots again", async () => {
    const before = await mvm.show("beta")
    await virt.killDaemon()
    const { status, errors } = await mvm.run("vm", "stop", "beta", "--force")
    expect({ status, errors }).toEqual({
      status: 3,
      errors: expect.stringContaining("libvirt does not answer") as string,
    })
    expect(await mvm.show("beta")).toMatchObject({ state: "running", qemuPid: before.qemuPid })
    process.kill(before.vtpmPid!, "SIGKILL")
    await until("a try to end it", () => /vm_end.*libvirt does not answer/.test(mvm.serveLog()))
    await virt.startDaemon()
    expect((await mvm.bootedAgain("beta", before)).verdict).toBe("trusted")
  }, 240_000)

  test("is asked to shut down through libvirt where its monitor is not to be had", async () => {
    const { config } = (await mvm.show("beta")) as unknown as { config: { libvirt: { domain: string } } }
    const virsh = new Virsh(virt.uri)
    const events = new VirshEvents(virsh, new Log({ level: "error", format: "text" }))
    const parts = { arena: undefined, vtpmSocket: "", linkSocket: "" }
    await new LibvirtMachine({ vm: "beta", domain: config.libvirt.domain, virsh, events, parts }).shutdown()
    await until("beta to be stopped", async () => (await mvm.show("beta")).state === "stopped")
  }, 120_000)

  test("that lacks an element when it is started is not linked, and the element is named", async () => {
    const whole = await virt.xml("beta.example")
    await virt.redefine(whole.replace(/<pm>[^]*<\/pm>/, ""))
    expect(await mvm.run("vm", "start", "beta")).toMatchObject({
      status: 1,
      errors: expect.stringContaining("beta.example lacks <pm>") as string,
    })
    await virt.must("start", "beta.example", "--paused")
    const lacks = "the domain beta.example lacks <pm> as the MVM needs it"
    await until("a refusal", async () => (await mvm.show("beta")).refused === lacks)
    expect(await mvm.show("beta")).toMatchObject({ state: "stopped", link: "down" })
    await virt.must("destroy", "beta.example")
    await until("a ready vTPM", async () => (await mvm.show("beta")).refused === null)
    expect(await adopt("beta", "beta.example", "--apply")).toMatchObject({ status: 0 })
    expect(await virt.xml("beta.example")).toContain("<suspend-to-mem enabled='no'/>")
  }, 120_000)
})

describe("a domain that cannot be adopted", () => {
  test("because there is none of that name: the command that shows them", async () => {
    expect(await adopt("none", "no.such.domain", "--apply")).toMatchObject({
      status: 2,
      errors: expect.stringContaining("list --all") as string,
    })
  })

  test("because nobody answers there: what to start", async () => {
    const where = "qemu+unix:///system?socket=/nowhere/libvirt-sock"
    const { status, errors } = await mvm.run("vm", "create", "none", "--libvirt", "x", "--connect", where)
    expect({ status, errors }).toEqual({
      status: 3,
      errors: expect.stringContaining("libvirt does not answer") as string,
    })
  })

  test("because its daemon is one user's own", async () => {
    const { status, errors } = await mvm.run(
      ...["vm", "create", "none", "--libvirt", "x", "--connect", "qemu:///session"],
    )
    expect({ status, errors }).toEqual({
      status: 2,
      errors: expect.stringContaining("only a system daemon's domains can be adopted") as string,
    })
  })

  test("because it has a TPM of its own, or shared memory: the element, and the command that edits it", async () => {
    const tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    const shmem = "<shmem name='other'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
    for (const [name, devices, element] of [
      ["tpm.example", tpm, "<tpm>"],
      ["shmem.example", shmem, "<shmem>"],
    ] as const) {
      await virt.define(name, { devices })
      const before = await virt.xml(name)
      const { status, errors } = await adopt("conflict", name, "--apply")
      expect(status).toBe(2)
      expect(errors).toContain(`already has a ${element}`)
      expect(errors).toContain(`edit ${name}`)
      expect(await virt.xml(name)).toBe(before)
    }
  })

  test("because its buses are full: the elements that find no slot", async () => {
    const slots = Array.from({ length: 30 }, (_, index) => {
      const address = `<address type='pci' domain='0' bus='0' slot='${index + 2}' function='0'/>`
      return `<controller type='scsi' index='${index}' model='virtio-scsi'>${address}</controller>`
    })
    await virt.define("full.example", { devices: slots.join("") })
    const before = await virt.xml("full.example")
    const { status, errors } = await adopt("full", "full.example", "--apply")
    expect(status).toBe(2)
    expect(errors).toContain("full.example has no free PCI slot for <shmem> and <channel>")
    expect(errors).toContain("edit full.example")
    expect(await virt.xml("full.example")).toBe(before)
  })

  test("because its machine has no place for the MVM's devices: the element that says so", async () => {
    await virt.define("isa.example", { machine: "isapc" })
    const before = await virt.xml("isa.example")
    const { status, errors } = await adopt("isa", "isa.example", "--apply")
    expect(status).toBe(2)
    expect(errors).toContain("<type machine='isapc'>")
    expect(await virt.xml("isa.example")).toBe(before)
    expect((await mvm.run("vm", "show", "isa")).status).toBe(2)
  })

  test("because it runs and would have to change: which elements, and how to shut it down", async () => {
    await virt.define("running.example")
    await virt.must("start", "running.example", "--paused")
    const before = await virt.xml("running.example")
    const { status, errors } = await adopt("running", "running.example", "--apply")
    expect(status).toBe(1)
    expect(errors).toMatch(/running.example is paused: .*<shmem>, <tpm>, <channel>/)
    expect(errors).toContain("shutdown running.example")
    expect(await virt.xml("running.example")).toBe(before)
    await virt.must("destroy", "running.example")
  })
})

/** Plugs devices into a `pc` until its bus is full, and again when what was there has made room. */
async function takePlaces(socket: string): Promise<void> {
  const qmp = await Qmp.connect(socket)
  try {
    for (let taken = 0; taken < 64; taken++) {
      try {
        await qmp.execute("device_add", { driver: "pci-testdev", id: `taken${taken}`, bus: "pci.0" })
      } catch (error) {
        expect(String(error)).toContain("no slot/function available")
        return
      }
    }
  } finally {
    qmp.close()
  }
}

describe("a QEMU started by hand", () => {
  test("with the printed arguments is a member like any other", async () => {
    await mvm.must("vm", "create", "lab", "--external", "--memory", "768M")
    expect(await mvm.run("vm", "start", "lab")).toMatchObject({
      status: 2,
      errors: expect.stringContaining("mvm vm qemu-args lab") as string,
    })
    const printed = (await mvm.must("vm", "qemu-args", "lab")).trim()
    const socket = join(virt.folder, "consoles/lab")
    const own = [
      ...["-nodefaults", "-display", "none", "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max"],
      ...["-m", "768", "-kernel", join(virt.folder, "vmlinuz")],
      ...["-initrd", join(virt.folder, "initramfs.cpio"), "-append", `'${kernelAppend("pc")}'`],
      ...["-chardev", `socket,id=con,path=${socket},server=on,wait=off`, "-serial", "chardev:con"],
      ...["-qmp", `unix:${join(virt.folder, "lab.qmp")},server=on,wait=off`],
    ]
    const qemu = Bun.spawn(["sh", "-c", `exec qemu-system-x86_64 ${own.join(" ")} ${printed}`], {
      stdio: ["ignore", "ignore", "inherit"],
    })
    try {
      await mvm.linked("lab")
      await mvm.learn("lab")
      const lab = await virt.console("lab")
      expect(await pass(alpha, [lab, "lab"])).toBe("dedicated")
      // Somebody takes every place that there is: the next channel is in the arena, and both ends know.
      await mvm.allow("* *")
      await until("what was kept to be taken back", async () => {
        return (await mvm.json<{ dedicated: { idle: number } }>("status")).dedicated.idle === 0
      })
      await takePlaces(join(virt.folder, "lab.qmp"))
      expect(await pass(alpha, [lab, "lab"])).toBe("arena")
      await mvm.must("vm", "stop", "lab", "--force")
      expect(await qemu.exited).toBe(0)
      await until("lab to be stopped", async () => (await mvm.show("lab")).state === "stopped")
    } finally {
      qemu.kill("SIGKILL")
      await qemu.exited
    }
  }, 240_000)
})

test("a removed VM leaves its domain as it was before", async () => {
  await mvm.must("vm", "rm", "beta", "--apply")
  const xml = await virt.xml("beta.example")
  for (const part of ["ivshmem", "<tpm", "org.mvm.0"]) expect(xml).not.toContain(part)
  expect(xml).toContain("<on_reboot>restart</on_reboot>")
  await virt.must("start", "beta.example")
}, 60_000)
