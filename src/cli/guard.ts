/**
 * @module cli/guard
 *
 * What a daemon does with an error that nothing caught: it says so and goes on. One peer's bug must not take the
 * others' channels down, and everything that was not decided stays denied; leases end by themselves.
 */

import { asMvmError } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"

export function keepRunning(log: Log): void {
  const say =
    (event: string) =>
    (error: unknown): void => {
      const { message, cause } = asMvmError(error)
      const stack = (error instanceof Error ? error.stack : cause instanceof Error ? cause.stack : "") ?? ""
      log.error(event, { message, stack: stack.slice(0, 2000) })
    }
  process.on("uncaughtException", say("uncaught_exception"))
  process.on("unhandledRejection", say("unhandled_rejection"))
}
