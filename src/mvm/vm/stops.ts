/**
 * @module mvm/vm/stops
 *
 * Guests that are asked to shut down because the operator says so. One that does not end in time goes on as before:
 * nothing is held while it is waited for, so the operator may still end it at once.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import { formatDuration } from "../../lib/units.ts"
import { isRunning } from "../../platform/process.ts"
import type { VmRecord } from "../state/registry.ts"
import type { VmMonitors } from "./vm-monitors.ts"
import type { RunState } from "./vm-process.ts"

/** How long a guest has for an orderly shutdown, unless the operator says otherwise. */
const SHUTDOWN_MS = 60_000
const POLL_MS = 100

export interface StopOptions {
  /** End QEMU at once instead of asking the guest to shut down. */
  readonly force?: boolean
  /** How long the guest has. */
  readonly timeoutMs?: number | undefined
}

export interface StopParts {
  readonly monitors: VmMonitors
  /** Asks the guest of a VM whose monitor does not answer. @throws MvmError where there is no other way. */
  ask(record: VmRecord): Promise<void>
  /** Whether these processes are gone, and that was noticed. */
  isOver(record: VmRecord, state: RunState): boolean
}

export class Stops {
  readonly #parts: StopParts
  /** How many requests wait for the end of these processes. */
  readonly #waiting = new Map<RunState, number>()
  #closed = false

  constructor(parts: StopParts) {
    this.#parts = parts
  }

  /** Whether an end of these processes is what the operator asked for. */
  isAsked(state: RunState): boolean {
    return this.#waiting.has(state)
  }

  /** Takes an end of these processes for the operator's while `work` goes on. */
  async during(state: RunState, work: () => Promise<void>): Promise<void> {
    this.#waiting.set(state, (this.#waiting.get(state) ?? 0) + 1)
    try {
      await work()
    } finally {
      const left = (this.#waiting.get(state) ?? 0) - 1
      if (left > 0) this.#waiting.set(state, left)
      else this.#waiting.delete(state)
    }
  }

  /**
   * Asks the guest to shut down, and waits for its end.
   *
   * @throws MvmError `timeout` when it runs on, `unreachable` or as libvirt when it cannot be asked.
   */
  async shutDown(record: VmRecord, state: RunState, timeoutMs = SHUTDOWN_MS): Promise<void> {
    await this.#ask(record, state)
    const deadline = performance.now() + timeoutMs
    while (!this.#parts.isOver(record, state)) {
      if (this.#closed) throw new MvmError("aborted", `mvm serve ended before ${record.name} did`)
      if (performance.now() > deadline && state.qemu && isRunning(state.qemu)) {
        throw new MvmError(
          "timeout",
          `${record.name} did not shut down within ${formatDuration(timeoutMs)}`,
          {
            hint: forceHint(record),
          },
        )
      }
      await Bun.sleep(POLL_MS)
    }
  }

  /** Nobody waits any more. */
  close(): void {
    this.#closed = true
  }

  async #ask(record: VmRecord, { qemu }: RunState): Promise<void> {
    if (await this.#parts.monitors.powerdown(record.uuid)) return
    if (!qemu || !isRunning(qemu)) return
    try {
      await this.#parts.ask(record)
    } catch (cause) {
      if (!isRunning(qemu)) return
      const { code, message } = asMvmError(cause)
      throw new MvmError(code, `${record.name} cannot be asked to shut down: ${message}`, {
        cause,
        hint: forceHint(record),
      })
    }
  }
}

/** @throws MvmError `usage` for a member that the MVM cannot start again. */
export function requireRebootable({ name, kind }: VmRecord): void {
  if (kind === "local")
    throw new MvmError("usage", `${name} is a local endpoint, which has no machine to reboot`)
  if (kind !== "external") return
  throw new MvmError("usage", `${name} is started by hand: the MVM could shut it down, not start it again`, {
    hint: `mvm vm stop ${name}, then start its QEMU`,
  })
}

function forceHint({ name }: VmRecord): string {
  return `mvm vm stop ${name} --force ends it at once`
}
