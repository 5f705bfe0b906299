/**
 * @module mvm/vm/vm-settings
 *
 * What is set of a VM, changed in registry and audit log.
 */

import { existsSync } from "node:fs"
import { MvmError } from "../../lib/errors.ts"
import { requireFiles } from "../../platform/qemu.ts"
import type { AuditCommitter } from "../state/audit-committer.ts"
import type { Registry, VmConfig, VmRecord } from "../state/registry.ts"
import type { VmPaths } from "./vm-process.ts"
import { absolutePaths, copyFirmwareVars, qemuOptions, type StartParts } from "./vm-start.ts"

/** Settings that say nothing of the machine: they may change while it runs. */
export const STANDING_FIELDS = new Set(["remeasureSeconds", "violations", "autostart"])

export interface Settings {
  /** All of them, as they shall be. */
  readonly config: VmConfig
  /** Those that are others than before. */
  readonly change: Partial<VmConfig>
  /** All tags it then has; undefined leaves them. */
  readonly tags: readonly string[] | undefined
}

/** Resolves when the change is in the audit log. @throws MvmError as {@link refuseAutostart}. */
export async function writeSettings(
  { registry, audit }: { readonly registry: Registry; readonly audit: AuditCommitter },
  { uuid, name, kind }: Pick<VmRecord, "uuid" | "name" | "kind">,
  { config, change, tags }: Settings,
): Promise<void> {
  refuseAutostart({ name, kind, config })
  registry.database.transaction(() => {
    registry.updateConfig(uuid, config)
    if (tags) registry.setTags(uuid, tags)
  })
  await audit.commit("vm_set", { vm: name, ...change, ...(tags && { tags: [...tags] }) })
}

/** @throws MvmError `usage` for a VM that is to start with the host and that the MVM does not start. */
export function refuseAutostart({ name, kind, config }: Pick<VmRecord, "name" | "kind" | "config">): void {
  if (kind === "qemu" || !config.autostart) return
  const domain = config.libvirt?.domain
  throw new MvmError("usage", `${name} is no VM that the MVM starts`, {
    hint: domain === undefined ? undefined : `virsh -c ${config.libvirt?.uri} autostart ${domain}`,
  })
}

/**
 * How a stopped VM starts from now on.
 *
 * @throws MvmError `config` or `not_found` for values that it could never start with; nothing is changed then.
 */
export async function writeStartSettings(
  parts: StartParts,
  { record, paths }: { readonly record: VmRecord; readonly paths: VmPaths },
  change: Partial<VmConfig>,
  tags: readonly string[] | undefined,
): Promise<void> {
  const config = absolutePaths({ ...record.config, ...change })
  requireFiles(qemuOptions(parts, { ...record, config }, paths))
  if (config.firmware === "ovmf" && !existsSync(paths.firmwareVars)) copyFirmwareVars(paths, config.machine)
  await writeSettings(parts, record, { config, change, tags })
}
