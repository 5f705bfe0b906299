/**
 * @module mvm/vm/restarts
 *
 * Starting VMs again that ended by themselves. A guest reboots when it likes, and each start costs the host a vTPM,
 * a QEMU and the digests of both; so the first is free, and those that follow soon wait longer each time.
 */

const FIRST_DELAY_MS = 1000
const MAX_DELAY_MS = 60_000
/** A VM that ran this long begins anew. */
const QUIET_MS = 120_000

export class Restarts {
  readonly #last = new Map<string, { atMs: number; delayMs: number }>()
  readonly #waiting = new Map<string, ReturnType<typeof setTimeout>>()

  /** Runs `start` for `uuid` when its turn comes. @returns the delay, ms */
  schedule(uuid: string, start: () => void, nowMs = performance.now()): number {
    this.cancel(uuid)
    const delayMs = this.#delay(uuid, nowMs)
    this.#last.set(uuid, { atMs: nowMs + delayMs, delayMs })
    const timer = setTimeout(() => {
      this.#waiting.delete(uuid)
      start()
    }, delayMs)
    this.#waiting.set(uuid, timer)
    return delayMs
  }

  /** Whether one was waiting. */
  cancel(uuid: string): boolean {
    clearTimeout(this.#waiting.get(uuid))
    return this.#waiting.delete(uuid)
  }

  close(): void {
    for (const uuid of [...this.#waiting.keys()]) this.cancel(uuid)
  }

  #delay(uuid: string, nowMs: number): number {
    const last = this.#last.get(uuid)
    if (!last || nowMs - last.atMs > QUIET_MS) return 0
    return Math.min(Math.max(FIRST_DELAY_MS, last.delayMs * 2), MAX_DELAY_MS)
  }
}
