/**
 * @module mvm/metrics/scrape
 *
 * Everything a scrape gets: what was counted, and what is at this moment.
 */

import { VERSION } from "../../lib/version.ts"
import { processUsage } from "../../platform/process-usage.ts"
import type { ChannelState } from "../channels/channel.ts"
import type { Mvm } from "../context.ts"
import type { Opinion } from "../verifier.ts"
import { exposition, gauge, type Family } from "./exposition.ts"

/** @throws MvmError when the database does not answer: the scrape fails, as it should. */
export function scrape(mvm: Mvm): string {
  return exposition([...now(mvm), ...mvm.context.meters.families(), ...ofProcess()])
}

function now(mvm: Mvm): Family[] {
  const { registry, hub, channels, arena, audit, policy } = mvm.context
  const records = registry.listVms()
  const own = mvm.context.dedicated.view
  const kept = mvm.context.deposits.table.kept()
  const running = records.filter(({ uuid }) => mvm.vms.isRunning(uuid)).length
  const verdicts: Record<Opinion["verdict"], number> = {
    trusted: 0,
    untrusted: 0,
    no_reference: 0,
    unknown: 0,
  }
  for (const record of records) verdicts[mvm.verifierOf(record).opinion.verdict] += 1
  const states: Record<ChannelState, number> = { allocated: 0, challenged: 0, granted: 0, open: 0, closed: 0 }
  for (const { state } of channels.all()) states[state] += 1
  return [
    {
      name: "mvm_build_info",
      type: "gauge",
      help: "Always 1; the label says which version runs.",
      samples: [{ labels: { version: VERSION }, value: 1 }],
    },
    gauge("mvm_vms", "VMs and local endpoints, by whether they run.", {
      running,
      stopped: records.length - running,
    }),
    gauge("mvm_links", "Agents that are linked.", hub.members().filter(({ session }) => session).length),
    gauge("mvm_verdicts", "VMs by the verdict on what they run.", verdicts, "verdict"),
    gauge("mvm_channels", "Channels by state; a closed one still holds its region.", states),
    gauge("mvm_offers", "Commands and services that wait for a channel.", offersOf(mvm)),
    gauge("mvm_arena_size_bytes", "Shared memory of the arena.", arena.sizeBytes),
    gauge("mvm_arena_free_bytes", "Shared memory of the arena that no channel holds.", arena.freeBytes),
    gauge("mvm_dedicated_limit_bytes", "Shared memory that channels may have of their own.", own.limitBytes),
    gauge(
      "mvm_dedicated_used_bytes",
      "Shared memory that channels have of their own, or that is kept.",
      own.usedBytes,
    ),
    gauge("mvm_deposits", "Deposits that the MVM keeps.", kept.count),
    gauge("mvm_deposited_bytes", "What those take on disk.", kept.bytes),
    gauge(
      "mvm_policy_valid",
      "1 while the policy can be used; else everything is denied.",
      isValid(policy.current),
    ),
    {
      name: "mvm_audit_rows_total",
      type: "counter",
      help: "Rows of the audit log.",
      samples: [{ value: audit.log.head().sequence }],
    },
  ]
}

function offersOf({ context }: Mvm): number {
  return context.hub.members().reduce((sum, { offers }) => sum + offers.size, 0)
}

function isValid(policy: object): number {
  return "error" in policy ? 0 : 1
}

/** Under the names that every Prometheus client uses. */
function ofProcess(): Family[] {
  const usage = processUsage()
  return [
    {
      name: "process_cpu_seconds_total",
      type: "counter",
      help: "Total user and system CPU time spent in seconds.",
      samples: [{ value: usage.cpuSeconds }],
    },
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", usage.residentBytes),
    gauge(
      "process_anonymous_memory_bytes",
      "Resident memory that is neither file nor shared, in bytes.",
      usage.anonymousBytes,
    ),
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", usage.virtualBytes),
    gauge("process_open_fds", "Number of open file descriptors.", usage.openDescriptors),
    gauge(
      "process_start_time_seconds",
      "Start time of the process since unix epoch in seconds.",
      usage.startSeconds,
    ),
  ]
}
