/**
 * @module mvm/health
 *
 * The running MVM in one line, and whether it can do its work: for the service manager.
 */

import type { Mvm } from "./context.ts"

/** A disk that takes longer for one row holds every channel up. */
const MAX_COMMIT_MS = 30_000

export function summaryOf({ context, vms }: Mvm): string {
  const { registry, hub, channels, policy } = context
  const records = registry.listVms()
  const running = records.filter(({ uuid }) => vms.isRunning(uuid)).length
  const linked = hub.members().filter(({ session }) => session).length
  const parts = [
    `${running} of ${records.length} VMs running`,
    `${linked} linked`,
    `${channels.size} channels`,
  ]
  if ("error" in policy.current) parts.push("the policy is broken: everything is denied")
  return parts.join(", ")
}

/**
 * Whether the database answers, and takes rows in time.
 *
 * @throws MvmError `state`, `io`: it does not.
 */
export function isHealthy({ context }: Mvm): boolean {
  context.audit.log.head()
  return context.audit.waitingMs < MAX_COMMIT_MS
}
