/**
 * @module test/e2e/adoption
 *
 * What adoption and release leave of a domain's XML, with a real libvirt and no domain running.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { Log } from "../../src/lib/log.ts"
import { Arena, arenaPathOf } from "../../src/mvm/channels/arena.ts"
import { AuditCommitter } from "../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../src/mvm/state/audit.ts"
import { openRegistry, type VmConfig } from "../../src/mvm/state/registry.ts"
import { adoptDomain, type AdoptionParts } from "../../src/mvm/vm/followed/adoption.ts"
import { VmMonitors } from "../../src/mvm/vm/vm-monitors.ts"
import { VmManager } from "../../src/mvm/vm/vms.ts"
import { closeLater, failure, sampleVm, scratchState } from "../mvm/scratch-state.ts"
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
