/**
 * @module mvm/vm/vm-start
 *
 * The start of one member's processes: its vTPM is checked first, then QEMU gets it, and nothing is left when
 * either fails.
 */

import { copyFileSync, existsSync, mkdirSync } from "node:fs"
import { resolve } from "node:path"
import { MvmError } from "../../lib/errors.ts"
import { chooseAccel } from "../../platform/accel.ts"
import { launchFilesOf } from "../../platform/launch-digest.ts"
import { firmwareFiles, kernelAppend, type Machine, type QemuOptions } from "../../platform/qemu-args.ts"
import { launchQemu, type QemuProcess } from "../../platform/qemu.ts"
import type { Arena } from "../channels/arena.ts"
import type { AuditCommitter } from "../state/audit-committer.ts"
import { measureLaunch } from "./launch.ts"
import type { Registry, VmConfig, VmRecord } from "../state/registry.ts"
import type { StateDir } from "../state/state-dir.ts"
import { clearRunState, processId, saveRunState, vmPaths, type RunState, type VmPaths } from "./vm-process.ts"
import { startVtpmForQemu, startVtpmLocal, type StartOptions } from "../vtpm/start.ts"

export interface StartParts {
  readonly stateDir: StateDir
  readonly registry: Registry
  readonly audit: AuditCommitter
  readonly arena: Arena
}

/** A local endpoint's vTPM, started anew. */
export async function startLocal(parts: StartParts, record: VmRecord): Promise<RunState> {
  const paths = vmPaths(parts.stateDir.path, record.uuid, record.name)
  const vtpm = await startVtpmLocal({ ...vtpmOptions(parts, record, paths), dataSocket: paths.vtpmData })
  try {
    checkClock(parts.registry, record, vtpm.clockBefore)
    const state: RunState = {
      vtpm: processId(vtpm.pid, "swtpm"),
      qemu: undefined,
      resetCount: vtpm.clockBefore.resetCount,
      startedMs: Date.now(),
    }
    saveRunState(paths, state)
    return state
  } catch (error) {
    await vtpm.stop()
    throw error
  }
}

/**
 * The vTPM of a VM whose QEMU others start, ready for it.
 *
 * @param listener a descriptor that listens at the vTPM's control socket
 */
export async function startVtpmReady(
  parts: StartParts,
  record: VmRecord,
  listener: number,
): Promise<RunState> {
  const paths = vmPaths(parts.stateDir.path, record.uuid, record.name)
  const vtpm = await startVtpmForQemu({
    ...vtpmOptions(parts, record, paths),
    controlSocket: paths.vtpmControl,
    controlListener: { fd: listener, pidFile: paths.vtpmPid },
  })
  try {
    checkClock(parts.registry, record, vtpm.clockBefore)
    const state: RunState = {
      vtpm: processId(vtpm.pid, "swtpm"),
      qemu: undefined,
      resetCount: vtpm.clockBefore.resetCount + 1,
      startedMs: Date.now(),
    }
    saveRunState(paths, state)
    return state
  } catch (error) {
    await vtpm.stop()
    throw error
  }
}

/** vTPM and QEMU of a VM. */
export async function startQemu(parts: StartParts, record: VmRecord): Promise<RunState> {
  const { registry, audit } = parts
  const paths = vmPaths(parts.stateDir.path, record.uuid, record.name)
  const options = qemuOptions(parts, record, paths)
  mkdirSync(paths.run, { recursive: true, mode: 0o700 })
  const launch = await measureLaunch(launchFilesOf(options))
  const vtpm = await startVtpmForQemu({
    ...vtpmOptions(parts, record, paths),
    controlSocket: paths.vtpmControl,
  })
  let qemu: QemuProcess | undefined
  try {
    checkClock(parts.registry, record, vtpm.clockBefore)
    qemu = await launchQemu(options, paths.qemuLog)
    // The firmware's start of the TPM is the one reset this boot may show.
    const resetCount = vtpm.clockBefore.resetCount + 1
    const state: RunState = {
      vtpm: processId(vtpm.pid, "swtpm"),
      qemu: processId(qemu.pid, "qemu"),
      resetCount,
      startedMs: Date.now(),
    }
    saveRunState(paths, state)
    registry.trust.recordLaunch(record.uuid, launch, Date.now())
    await audit.commit("vm_start", { vm: record.name, accel: options.accel, ...launch.digests })
    return state
  } catch (error) {
    await qemu?.kill()
    await vtpm.stop()
    clearRunState(paths)
    throw error
  }
}

/** The vTPM's own memory of its boots must not go backwards between two starts. */
function checkClock(
  registry: Registry,
  record: VmRecord,
  seen: { resetCount: number; clock: bigint; restartCount: number },
): void {
  const last = registry.trust.getClock(record.uuid)
  if (last && seen.resetCount < last.resetCount) {
    throw new MvmError(
      "evidence_rollback",
      `the vTPM state of ${record.name} is an older copy: ${seen.resetCount} resets, ${last.resetCount} known`,
      { hint: `restore the newest state, or remove the VM and create it again` },
    )
  }
  registry.trust.setClock(record.uuid, {
    resetCount: seen.resetCount,
    restartCount: seen.restartCount,
    clock: seen.clock,
  })
}

function vtpmOptions(parts: StartParts, record: VmRecord, paths: VmPaths): StartOptions {
  const { stateDir } = parts
  return {
    stateDir: paths.vtpmState,
    runDir: paths.run,
    stateKey: stateDir.vmStateKey(record.uuid),
    mvmPublicKey: stateDir.identity.publicKey,
    names: record.names,
  }
}

export function qemuOptions(
  parts: StartParts,
  vm: { name: string; uuid: string; config: VmConfig },
  paths: VmPaths,
): QemuOptions {
  const { config } = vm
  if (!config.kernel || !config.initrd)
    throw new MvmError("usage", "a VM needs --kernel and --initrd", {
      hint: "scripts/guest-image makes both; a member without a machine of its own is made with --local",
    })
  return {
    name: vm.name,
    uuid: vm.uuid,
    kernel: config.kernel,
    initrd: config.initrd,
    append: [kernelAppend(config.machine), config.append].filter(Boolean).join(" "),
    memoryMiB: config.memoryMiB,
    cpus: config.cpus,
    net: config.net,
    disk: config.disk,
    firmware: config.firmware,
    machine: config.machine,
    arena:
      config.memoryDevice === "none"
        ? undefined
        : { path: parts.arena.path, sizeBytes: parts.arena.sizeBytes },
    vtpmControlSocket: paths.vtpmControl,
    linkSocket: paths.link,
    qmpSocket: paths.qmp,
    consoleSocket: paths.console,
    consoleLog: paths.consoleLog,
    accel: chooseAccel(),
    firmwareVars: existsSync(paths.firmwareVars) ? paths.firmwareVars : undefined,
  }
}

export function copyFirmwareVars(paths: VmPaths, machine: Machine): void {
  const { vars } = firmwareFiles("ovmf", machine)
  if (vars) copyFileSync(vars, paths.firmwareVars)
}

/** A configuration as it still means the same when the daemon is started elsewhere. */
export function absolutePaths(config: VmConfig): VmConfig {
  const absolute = (path: string | undefined): string | undefined =>
    path === undefined ? path : resolve(path)
  return {
    ...config,
    kernel: absolute(config.kernel),
    initrd: absolute(config.initrd),
    disk: absolute(config.disk),
  }
}
