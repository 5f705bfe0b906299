/**
 * @module mvm/install/installed
 *
 * The daemon as this host's service, by its unit: as whom it runs and what it reads, also while it does not run.
 */

import { existsSync } from "node:fs"
import { HOST_SERVICE, HOST_USER } from "./plan.ts"
import { SERVICE_POLICY, SERVICE_STATE } from "./units.ts"

/** The administrator's, and a package's. */
const UNIT_FOLDERS = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]

export interface InstalledService {
  readonly user: string
  readonly policy: string
}

/** The service whose state is in the directory `state`, if this host has one. */
export function serviceOf(state: string, folders = UNIT_FOLDERS): InstalledService | undefined {
  const isInstalled = folders.some((folder) => existsSync(`${folder}/${HOST_SERVICE}`))
  return isInstalled && state === SERVICE_STATE ? { user: HOST_USER, policy: SERVICE_POLICY } : undefined
}
