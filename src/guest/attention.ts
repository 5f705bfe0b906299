/**
 * @module guest/attention
 *
 * What a loop that never waits owes its agent: a look at its socket now and then, and a turn of the event loop when
 * something came.
 */

import { POLLIN, PollSet } from "../platform/posix.ts"
import { turn } from "./channel-end.ts"

/** A look is a system call: as often as a block is moved would be a twentieth of what moving it costs. */
const PERIOD_MS = 1

export class Attention {
  readonly #set: PollSet
  #dueMs = 0

  /** @param fd of the agent's socket */
  constructor(fd: number) {
    this.#set = new PollSet([{ fd, events: POLLIN }])
  }

  async look(): Promise<void> {
    const nowMs = performance.now()
    if (nowMs < this.#dueMs) return
    this.#dueMs = nowMs + PERIOD_MS
    if (this.#set.wait(0) > 0) await turn()
  }
}
