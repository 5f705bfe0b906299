/**
 * @module cli/daemon
 *
 * What the two daemons, `serve` and `guest agent`, have in common: their log, and when they end.
 */

import { Log, type Level } from "../lib/log.ts"
import { ServiceManager } from "../platform/service-manager.ts"
import type { Call, OptionSpec } from "./command.ts"
import { keepRunning } from "./guard.ts"

const LEVELS = ["debug", "info", "warn", "error"] as const satisfies readonly Level[]
const FORMATS = ["json", "text"] as const

export const DAEMON_OPTIONS: readonly OptionSpec[] = [
  { flags: "--log <level>", description: "debug, info, warn or error", default: "info", values: LEVELS },
  { flags: "--log-format <format>", description: "json or text", default: "text", values: FORMATS },
]

export interface Daemon {
  readonly log: Log
  /** Fires on SIGTERM and SIGINT. */
  readonly stopping: AbortSignal
  /** systemd, where it started this daemon. */
  readonly manager: ServiceManager
}

/** Begins a daemon's life: from here on an error that nothing caught is said and does not end it. */
export function beginDaemon(call: Call): Daemon {
  const log = new Log({
    level: call.oneOf("log", LEVELS, "info"),
    format: call.oneOf("logFormat", FORMATS, "text"),
  })
  keepRunning(log)
  const manager = ServiceManager.from(process.env, process.pid)
  const stopping = new AbortController()
  stopping.signal.addEventListener("abort", () => manager.stopping())
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stopping.abort())
  return { log, stopping: stopping.signal, manager }
}
