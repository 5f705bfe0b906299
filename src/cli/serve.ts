/** @module cli/serve */

import { isHealthy, summaryOf } from "../mvm/health.ts"
import { DEFAULT_LIMITS } from "../mvm/deposits/quota.ts"
import { CONTENT_TYPE } from "../mvm/metrics/exposition.ts"
import { scrape } from "../mvm/metrics/scrape.ts"
import { serve } from "../mvm/serve.ts"
import { parseMetricsAddress, serveMetrics, type MetricsServer } from "../platform/metrics-server.ts"
import { DEFAULT_RING_BYTES } from "../ring/layout.ts"
import type { CommandSpec } from "./command.ts"
import { STATE_OPTION, stateDirectory } from "./connect.ts"
import { DAEMON_OPTIONS, beginDaemon } from "./daemon.ts"

export const DEFAULT_ARENA_BYTES = 256 * 1024 * 1024
const DEFAULT_LEASE_MS = 90_000
export const DEFAULT_DEDICATED_BYTES = 1024 * 1024 * 1024
const DEFAULT_POOL = 2
const DEFAULT_POOL_IDLE_MS = 300_000

export const serveCommand: CommandSpec = {
  usage: "serve",
  summary: "run the host daemon (the MVM)",
  options: [
    STATE_OPTION,
    {
      flags: "--state-key <file>",
      description: "32 bytes that encrypt the state (default: made in the state)",
    },
    { flags: "--policy <file>", description: "the policy (default: policy.toml in the state directory)" },
    { flags: "--arena <size>", description: "size of the shared memory, a power of two (default 256M)" },
    { flags: "--arena-file <path>", description: "its file (default: one under /dev/shm)" },
    { flags: "--dedicated <size>", description: "the most of memory of channels' own (default 1G)" },
    {
      flags: "--pool <count>",
      description: "memories kept plugged into two VMs for their next channels (default 2; 0: none)",
    },
    { flags: "--pool-idle <time>", description: "how long they are kept (default 5m)" },
    {
      flags: "--ring <size>",
      description: "size of each of a channel's two rings (default 4M; smaller as memory fills)",
    },
    {
      flags: "--lease <time>",
      description: "how long a channel lives without a new measurement (default 90s)",
    },
    { flags: "--deposits <size>", description: "the most of deposits that are kept (default 1G)" },
    { flags: "--deposits-vm <size>", description: "the most of one VM's (default 256M)" },
    { flags: "--deposits-expire <time>", description: "the longest one is kept (default 7d)" },
    {
      flags: "--certificates",
      description: "give every new vTPM certificates by a local CA, as vm create --certificate",
    },
    {
      flags: "--metrics <address>",
      description: "serve metrics for Prometheus at unix:PATH or 127.0.0.1:PORT, as /metrics",
    },
    ...DAEMON_OPTIONS,
  ],
  examples: [
    "serve",
    "serve --state /srv/mvm --arena 1G --log-format json",
    "serve --metrics 127.0.0.1:9745",
  ],
  async run(call) {
    const { log, stopping, manager } = beginDaemon(call)
    const named = call.text("metrics")
    const address = named === undefined ? undefined : parseMetricsAddress(named, "--metrics")
    const running = await serve({
      state: stateDirectory(call),
      stateKeyFile: call.text("stateKey"),
      policyFile: call.text("policy"),
      arenaBytes: call.sizeBytes("arena", DEFAULT_ARENA_BYTES),
      arenaPath: call.text("arenaFile"),
      dedicatedBytes: call.sizeBytes("dedicated", DEFAULT_DEDICATED_BYTES),
      pool: {
        size: call.integer("pool", DEFAULT_POOL, { min: 0, max: 8 }),
        idleMs: call.durationMs("poolIdle", DEFAULT_POOL_IDLE_MS),
      },
      ringBytes: call.sizeBytes("ring", DEFAULT_RING_BYTES),
      certificates: call.flag("certificates"),
      deposits: {
        totalBytes: call.sizeBytes("deposits", DEFAULT_LIMITS.totalBytes),
        vmBytes: call.sizeBytes("depositsVm", DEFAULT_LIMITS.vmBytes),
        maxLifetimeMs: call.durationMs("depositsExpire", DEFAULT_LIMITS.maxLifetimeMs),
      },
      leaseMs: call.durationMs("lease", DEFAULT_LEASE_MS),
      log,
    })
    const { mvm } = running
    let metrics: MetricsServer | undefined
    try {
      metrics = address && serveMetrics(address, CONTENT_TYPE, () => scrape(mvm))
      if (metrics) log.info("metrics", { ...metrics.address })
      manager.ready({ status: () => summaryOf(mvm), isAlive: () => isHealthy(mvm) })
      await aborted(stopping)
      log.info("stopping")
    } finally {
      metrics?.close()
      await running.stop()
    }
  },
}

/** A signal that came while the daemon still began counts too. */
function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }))
}
