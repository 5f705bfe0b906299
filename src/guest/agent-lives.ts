/**
 * @module guest/agent-lives
 *
 * One agent after another. A VM's agent has one life. A local endpoint's begins anew with its vTPM, since each start
 * of that is a boot: another log, another boot id, no channel from before.
 */

import { asMvmError } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import { Agent } from "./agent.ts"
import type { Environment } from "./environment.ts"

const PAUSE_MS = 500

export interface LivesOptions {
  /** Called for each life. */
  environment(): Environment
  readonly log: Log
  /** The group whose users may use channels; undefined: only the agent's own user */
  readonly gid: number | undefined
  readonly stopping: AbortSignal
  /** A life has begun: commands are served. */
  onServing?(agent: Agent): void
}

/**
 * Resolves when `stopping` fires or the operator stopped the endpoint.
 *
 * @throws MvmError why the first life could not begin; later ones are tried again.
 */
export async function runAgent(options: LivesOptions): Promise<void> {
  const { log, gid, stopping } = options
  for (let life = 1; !stopping.aborted; life += 1) {
    const { promise: over, resolve: end } = Promise.withResolvers<"again" | "stopped">()
    const onStopping = (): void => end("stopped")
    stopping.addEventListener("abort", onStopping)
    let agent: Agent | undefined
    try {
      agent = await Agent.start({
        environment: options.environment(),
        log,
        gid,
        stopping,
        onVtpmLost: (error) => {
          log.warn("vtpm_lost", { message: error.message })
          end("again")
        },
        onStopped: (reason) => {
          log.info("stopped", { reason })
          end("stopped")
        },
      })
      options.onServing?.(agent)
      if ((await over) === "stopped") return
    } catch (error) {
      if (stopping.aborted) return
      if (life === 1) throw error
      log.warn("start", { message: asMvmError(error).message })
      await Bun.sleep(PAUSE_MS)
    } finally {
      stopping.removeEventListener("abort", onStopping)
      agent?.stop()
    }
  }
}
