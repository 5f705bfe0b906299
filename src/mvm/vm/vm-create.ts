/**
 * @module mvm/vm/vm-create
 *
 * A new member: its vTPM, its keys, its record. Nothing is left behind when a part of it fails.
 */

import { rmSync } from "node:fs"
import { resolve } from "node:path"
import { asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import type { VmConfig, VmRecord } from "../state/registry.ts"
import { createWithCertificate } from "../vtpm/certificate.ts"
import { provisionVtpm } from "../vtpm/provision.ts"
import { caDirectory, keepCertificates } from "./vm-certificates.ts"
import { vmPaths } from "./vm-process.ts"
import { refuseAutostart } from "./vm-settings.ts"
import { copyFirmwareVars, type StartParts } from "./vm-start.ts"

export interface CreateOptions {
  readonly name: string
  readonly kind: VmRecord["kind"]
  readonly config: VmConfig
  readonly tags: readonly string[]
  /** With endorsement keys and certificates for them; undefined: as the manager is set. */
  readonly certificate?: boolean | undefined
}

export interface CreateParts extends StartParts {
  /** Whether new vTPMs get certificates unless told otherwise: that takes most of a second. */
  readonly certificates?: boolean
  readonly log: Log
}

/** @throws MvmError as provisioning a vTPM, the registry and the audit log. */
export async function makeMember(
  parts: CreateParts,
  { uuid, name, kind, config, tags, certificate }: CreateOptions & { readonly uuid: string },
): Promise<VmRecord> {
  refuseAutostart({ name, kind, config })
  const { registry, stateDir, audit, log } = parts
  const paths = vmPaths(stateDir.path, uuid, name)
  try {
    const place = { stateDir: paths.vtpmState, runDir: paths.run, stateKey: stateDir.vmStateKey(uuid) }
    if (certificate ?? parts.certificates) {
      const caDir = caDirectory(stateDir.path)
      keepCertificates(paths.certificates, await createWithCertificate({ ...place, caDir, vmId: uuid }))
    }
    const provisioned = await provisionVtpm({ ...place, mvmPublicKey: stateDir.identity.publicKey })
    if (config.firmware === "ovmf") copyFirmwareVars(paths, config.machine)
    const record: VmRecord = {
      uuid,
      name,
      kind,
      config,
      ...provisioned,
      tags: [...tags],
      createdMs: Date.now(),
    }
    registry.insertVm(record)
    await audit.commit("vm_create", { vm: name, uuid, vmKind: kind })
    return record
  } catch (error) {
    // Nor is one left that no audit row tells of.
    try {
      if (registry.getVm(uuid)) registry.removeVm(uuid)
    } catch (undone) {
      log.warn("vm_create", { message: asMvmError(undone).message })
    }
    if (!registry.getVm(uuid)) {
      rmSync(paths.run, { recursive: true, force: true })
      rmSync(resolve(paths.vtpmState, ".."), { recursive: true, force: true })
    }
    throw error
  }
}
