/**
 * @module test/e2e/adoption
 *
 * What adoption and release leave of a domain's XML, with a real libvirt and no domain running.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { Log } from "../../src/lib/log.ts"
import { Arena, arenaPathOf } from "../../src/mvm/channels/arena.ts"
import { AuditCommitter } from "../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../src/mvm/state/audit.ts"
import { openRegistry, type VmConfig } from "../../src/mvm/state/registry.ts"
import {
  adoptDomain,
  elementsOf,
  releaseDomain,
  type AdoptionParts,
} from "../../src/mvm/vm/followed/adoption.ts"
import { VmMonitors } from "../../src/mvm/vm/vm-monitors.ts"
import { VmManager } from "../../src/mvm/vm/vms.ts"
import { Domain } from "../../src/platform/libvirt/domain.ts"
import { judgeLibvirtCommandLine } from "../../src/platform/qemu-command-line.ts"
import { closeLater, failure, sampleVm, scratchFolder, scratchState } from "../mvm/scratch-state.ts"
import { Libvirtd } from "./libvirtd.ts"

let virt: Libvirtd
beforeAll(async () => {
  virt = await Libvirtd.start()
}, 60_000)
afterAll(async () => {
  await virt?.stop()
}, 60_000)

async function mvm() {
  const stateDir = await scratchState()
  const registry = openRegistry(stateDir)
  closeLater(() => registry.close())
  const log = new Log({ level: "error", format: "text" })
  const audit = new AuditCommitter(openAudit(stateDir, registry), log)
  const arena = Arena.open(arenaPathOf(stateDir.path), 1 << 20)
  closeLater(() => arena.close())
  const parts = { stateDir, registry, audit, arena, log }
  const vms = new VmManager({
    ...parts,
    monitors: new VmMonitors(log, { onMonitor: () => {}, onUnplugged: () => {} }),
    handlers: {
      onCreated: () => {},
      onStarted: () => {},
      onStopped: () => {},
      onRemoved: () => {},
      onPort: () => {},
      onHalt: () => {},
    },
  })
  closeLater(() => vms.close())
  const adoption: AdoptionParts = {
    ...parts,
    machines: vms.machines,
    create: (options) => vms.create(options),
    remove: (record) => vms.remove(record),
  }
  const { kernel: _kernel, ...config } = sampleVm("a").config
  const adopt = (domain: string, apply: boolean, more: Partial<VmConfig> = {}) => {
    const request = { name: "a", domain, uri: virt.uri, apply, config: { ...config, ...more }, tags: [] }
    return adoptDomain(adoption, request)
  }
  return { registry, vms, adoption, adopt, record: () => vms.require("a") }
}

test("a domain whose adoption fails after libvirt took it is as it was", async () => {
  await virt.define("failing.example")
  const { registry, vms, adopt, record } = await mvm()
  await adopt("failing.example", false)
  const before = await virt.xml("failing.example")
  registry.database.prepare("ALTER TABLE audit RENAME TO audit_gone").run()
  const { message } = await failure(() => adopt("failing.example", true))
  registry.database.prepare("ALTER TABLE audit_gone RENAME TO audit").run()
  expect(message).toContain("could not be added to failing.example")
  expect(await virt.xml("failing.example")).toBe(before)
  await vms.remove(record())
})

test.each(["pc", "q35"])("a released %s domain has what it had before, and no more", async (machine) => {
  const name = `released-${machine}.example`
  await virt.define(name, { machine })
  const before = await virt.xml(name)
  const { vms, adoption, adopt, record } = await mvm()
  await adopt(name, true)
  expect(await virt.xml(name)).not.toBe(before)
  await releaseDomain(adoption, record())
  expect(await virt.xml(name)).toBe(before)
  await vms.remove(record())
})

test("a domain that was adopted, forgotten and adopted again is not left with the MVM's values", async () => {
  await virt.define("again.example")
  const first = await mvm()
  await first.adopt("again.example", true)
  await first.vms.remove(first.record())
  const { vms, adoption, adopt, record } = await mvm()
  await adopt("again.example", true)
  expect(await releaseDomain(adoption, record())).toContain("<on_reboot> (restart, libvirt's default)")
  const xml = await virt.xml("again.example")
  expect(xml).toContain("<on_reboot>restart</on_reboot>")
  for (const part of ["<pm>", "ivshmem", "<tpm", "org.mvm.0"]) expect(xml).not.toContain(part)
  await vms.remove(record())
})

test("a controller that came with the MVM's elements stays with what was put on it since", async () => {
  await virt.define("kept.example", { machine: "q35" })
  const { vms, adoption, adopt, record } = await mvm()
  await adopt("kept.example", true)
  const channel =
    "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.example.0'/></channel>"
  await virt.redefine((await virt.xml("kept.example")).replace("</devices>", `${channel}</devices>`))
  await releaseDomain(adoption, record())
  const xml = await virt.xml("kept.example")
  expect(xml).toContain("org.example.0")
  expect(xml).toContain("<controller type='virtio-serial' index='0'>")
  await vms.remove(record())
})

test("a domain with a managed save is neither adopted nor started, and the command that removes it is named", async () => {
  const name = "saved & kept.example"
  await virt.define("saved &amp; kept.example")
  const { vms, adopt, record } = await mvm()
  await adopt(name, false)
  await virt.must("start", name, "--paused")
  await virt.must("managedsave", name)
  for (const work of [() => adopt(name, true), () => vms.start(record())]) {
    const { code, message, hint } = await failure(work)
    expect([code, message]).toEqual(["vm_state", expect.stringContaining(`${name} has a managed save`)])
    expect(hint).toStartWith(`virsh -c '${virt.uri}' managedsave-remove '${name}'`)
  }
  await virt.must("managedsave-remove", name)
  await adopt(name, true)
  await vms.remove(record())
})

test("a transient domain is not adopted, and the command that keeps it keeps its passwords and no name's words", async () => {
  const name = "it's; touch gone.example"
  await virt.define(name.replaceAll("'", "&apos;"), {
    devices: "<graphics type='vnc' passwd='secret'/>",
  })
  await virt.must("start", name, "--paused")
  await virt.must("undefine", name)
  const { adopt } = await mvm()
  const { code, hint } = await failure(() => adopt(name, true))
  expect(code).toBe("vm_state")
  const cwd = scratchFolder()
  expect(Bun.spawnSync(["sh", "-c", hint!], { cwd }).exitCode).toBe(0)
  expect(readdirSync(cwd)).toEqual([`${name}.xml`])
  expect(statSync(join(cwd, `${name}.xml`)).mode & 0o077).toBe(0)
  expect(await virt.must("dumpxml", "--inactive", "--security-info", name)).toContain("passwd='secret'")
  await virt.must("destroy", name)
})

test("a domain that lacks an element is mended by the command that the refusal names", async () => {
  const name = "lacking & more.example"
  await virt.define("lacking &amp; more.example")
  const { vms, adopt, record } = await mvm()
  await adopt(name, false)
  const { hint } = await failure(() => vms.start(record()))
  expect(hint).toContain(`mvm vm create a --libvirt '${name}' --connect '${virt.uri}' --apply`)
  await vms.remove(record())
})

test("a domain of a VM without a memory device gets none", async () => {
  await virt.define("relayed.example")
  const { vms, adopt, record } = await mvm()
  await adopt("relayed.example", true, { memoryDevice: "none" })
  const xml = await virt.xml("relayed.example")
  expect(xml).toContain("org.mvm.0")
  expect(xml).not.toContain("ivshmem")
  await vms.remove(record())
})

test("the printed elements are all that the domain lacks, and everything where it cannot be asked", async () => {
  await virt.define("printed.example")
  const { vms, adoption, adopt, record } = await mvm()
  await adopt("printed.example", false)
  const printed = async () => (await elementsOf(adoption, record())).map(({ xml }) => xml).join("")
  expect(await printed()).not.toContain("<on_crash>")
  const xml = await virt.xml("printed.example")
  await virt.redefine(xml.replace("<on_crash>destroy</on_crash>", "<on_crash>restart</on_crash>"))
  expect(await printed()).toContain("<on_crash>destroy</on_crash>")
  expect(await printed()).not.toContain("<on_poweroff>")
  await virt.must("undefine", "printed.example")
  expect(await printed()).toContain("<on_poweroff>destroy</on_poweroff>")
  await vms.remove(record())
})

/** The words that libvirt itself starts a domain's QEMU with. */
async function commandLine(domain: string): Promise<string[]> {
  const text = await virt.must("domxml-to-native", "qemu-argv", "--domain", domain)
  const printed = Bun.spawnSync(["sh", "-c", `set -- ${text.trim()}; printf '%s\\0' "$@"`])
  const words = printed.stdout.toString().split("\0").slice(0, -1)
  // Its environment comes first.
  return words.slice(words.findIndex((word) => word.includes("/qemu-system-")))
}

describe("the command line of an adopted domain", () => {
  test.each([
    ["pc", "pc", ""],
    ["q35", "q35", ""],
    ["ovmf", "q35", "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"],
  ])("of libvirt's own making is accepted: %s", async (title, machine, loader) => {
    const name = `judged-${title}.example`
    await virt.define(name, { machine })
    if (loader !== "") await virt.redefine((await virt.xml(name)).replace("<kernel>", `${loader}<kernel>`))
    const { vms, adopt, record } = await mvm()
    await adopt(name, true)
    const words = await commandLine(name)
    judgeLibvirtCommandLine(words, Domain.parse(await virt.xml(name)).launchFiles())
    expect(words).toContain("-kernel")
    await vms.remove(record())
  })

  test("is refused with words of the domain's own that undo what was asked for", async () => {
    await virt.define("undoing.example")
    const { vms, adopt, record } = await mvm()
    await adopt("undoing.example", true)
    const xml = (await virt.xml("undoing.example"))
      .replace("<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ")
      .replace(
        "</domain>",
        "<qemu:commandline><qemu:arg value='-global'/><qemu:arg value='PIIX4_PM.disable_s3=0'/></qemu:commandline></domain>",
      )
    await virt.redefine(xml)
    const words = await commandLine("undoing.example")
    const files = Domain.parse(await virt.xml("undoing.example")).launchFiles()
    expect(() => judgeLibvirtCommandLine(words, files)).toThrow("disable_s3=0")
    await vms.remove(record())
  })
})
