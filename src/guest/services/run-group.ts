/**
 * @module guest/services/run-group
 *
 * A run and everything it started: one process group, signalled as a whole. A run whose caller has gone is asked to
 * end with SIGHUP, as by a terminal whose user has gone, and ended with SIGKILL some seconds later.
 */

import { constants } from "node:os"
import type { PassedSignal, Side, SideFields } from "./side.ts"

/** Between being asked to end and being ended. */
const GRACE_MS = 5_000

export class RunGroup {
  readonly #leader: Bun.Subprocess
  #isEnding = false

  /** @param leader of a process group of its own (spawned detached, or in a terminal) */
  constructor(leader: Bun.Subprocess) {
    this.#leader = leader
  }

  signal(name: PassedSignal): void {
    if (this.#leader.exitCode === null && this.#leader.signalCode === null) this.#kill(name)
  }

  /** Ends what is left of the group. Idempotent. */
  hangUp(): void {
    if (this.#isEnding) return
    this.#isEnding = true
    this.#kill("SIGHUP")
    this.#kill("SIGCONT")
    const timer = setTimeout(() => this.#kill("SIGKILL"), GRACE_MS)
    void this.#leader.exited.then(() => {
      clearTimeout(timer)
      // Its number stays the group's while anything of the group lives.
      this.#kill("SIGKILL")
    })
  }

  /** Ends the group; resolves when its leader has ended. */
  async end(): Promise<void> {
    this.hangUp()
    await this.#leader.exited
  }

  /** Hangs up when `broken` fires. @returns what takes that back */
  endOn(broken: AbortSignal): () => void {
    const leave = (): void => this.hangUp()
    if (broken.aborted) leave()
    broken.addEventListener("abort", leave)
    return () => broken.removeEventListener("abort", leave)
  }

  /** How the leader ended, once it has. */
  get outcome(): SideFields<"EXITED"> {
    const { exitCode, signalCode } = this.#leader
    if (signalCode === null) return { status: (exitCode ?? 0) & 0xff }
    const name = signalCode as NodeJS.Signals
    return { status: 128 + (constants.signals[name] ?? 0), signal: name }
  }

  /**
   * Passes on what the caller orders, until it has said the last.
   *
   * Trust: the messages are the caller's; it can signal its own run and nothing else.
   *
   * @param onSize for a run in a terminal
   * @throws MvmError as the side stream does.
   */
  async obey(side: Side, onSize?: (columns: number, rows: number) => void): Promise<void> {
    for (;;) {
      const message = await side.receive()
      if (message === null) return
      if (message.name === "SIGNAL") this.signal(message.fields.name)
      else if (message.name === "SIZE") onSize?.(message.fields.columns, message.fields.rows)
    }
  }

  #kill(name: NodeJS.Signals): void {
    try {
      process.kill(-this.#leader.pid, name)
    } catch {
      // Nobody is left.
    }
  }
}
