/**
 * @module test/mvm/vm/manager
 *
 * A manager of VMs alone, with real vTPMs and QEMUs, and nobody to talk to their agents.
 */

import { join } from "node:path"
import { Log } from "../../../src/lib/log.ts"
import { Arena } from "../../../src/mvm/channels/arena.ts"
import { AuditCommitter } from "../../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../../src/mvm/state/audit.ts"
import { openRegistry } from "../../../src/mvm/state/registry.ts"
import { VmMonitors } from "../../../src/mvm/vm/vm-monitors.ts"
import { VmManager } from "../../../src/mvm/vm/vms.ts"
import { qemuFixture } from "../../platform/qemu-fixture.ts"
import { closeLater, sampleVm, scratchFolder, scratchState } from "../scratch-state.ts"

export async function manager() {
  const stateDir = await scratchState()
  const registry = openRegistry(stateDir)
  closeLater(() => registry.close())
  const log = new Log({ level: "error", format: "text" })
  const audit = new AuditCommitter(openAudit(stateDir, registry), log)
  const arena = Arena.open(join(scratchFolder(), "arena"), 1 << 20)
  closeLater(() => arena.close())
  const stopped: string[] = []
  const halted: string[] = []
  const parts = {
    stateDir,
    registry,
    audit,
    arena,
    log,
    monitors: new VmMonitors(log, { onMonitor: () => {}, onUnplugged: () => {} }),
    handlers: {
      onCreated: () => {},
      onStarted: () => {},
      onStopped: (_record: unknown, reason: string) => void stopped.push(reason),
      onRemoved: () => {},
      onPort: () => {},
      onHalt: (_record: unknown, reason: string) => void halted.push(reason),
    },
  }
  const vms = new VmManager(parts)
  closeLater(() => vms.close())
  const create = (name: string) =>
    vms.create({ name, kind: "local", tags: [], config: { ...sampleVm(name).config, kernel: undefined } })
  /** A QEMU whose guest does nothing, whatever it is asked. */
  const createDeaf = (name: string, kind: "qemu" | "external" = "qemu") => {
    const { options, remove } = qemuFixture()
    closeLater(remove)
    const { kernel, initrd, memoryMiB } = options
    const config = { ...sampleVm(name).config, kernel, initrd, memoryMiB }
    return vms.create({ name, kind, tags: [], config })
  }
  return { createDeaf, parts, stateDir, registry, audit, vms, stopped, halted, create }
}
