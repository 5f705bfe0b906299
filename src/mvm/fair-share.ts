/**
 * @module mvm/fair-share
 *
 * No member takes more than its share of the daemon's time while others want some. What a member sends is handled in
 * slices, and between turns everybody else is heard; a member that used up its share while another is active rests,
 * and its socket is not read meanwhile, so that its flood waits where it comes from.
 *
 * ```
 *            deliver                    turn over, or no credit left
 *   idle ───────────────► handling ─────────────────────────────────► resting (socket paused)
 *    ▲                        │  ▲                                       │
 *    └────── all handled ─────┘  └────────────── rested ─────────────────┘
 * ```
 *
 * A slice costs its member what it took until all that it set going by promises alone was done.
 */

/** One member handles up to so much in a turn: what anybody else waits for it at most. */
const TURN_MS = 0.5

/** Small enough that a slice of the dearest messages stays near a turn. */
const SLICE_BYTES = 2048

/** Time that comes to a member each millisecond while others are active: some 40 opens a second, or 50 MB/s relayed. */
const SHARE = 0.1

/** What it may have saved up. */
const SAVED_MS = 20

/** Others count as active for so long after they were heard. */
const ACTIVE_MS = 100

/** The longest chain of promises between a message and its answer that needs nobody else, with room to spare. */
const SETTLE_TICKS = 32

/** Clocks, and the way to let others go first. */
export interface Turns {
  now(): number
  /** Processor time of this thread: what the daemon waits for a processor is no member's doing. */
  usedMs(): number
  /** Not before `ms` passed. */
  rest(ms: number): Promise<void>
}

const REAL_TURNS: Turns = {
  now: () => performance.now(),
  usedMs: () => {
    const { user, system } = process.threadCpuUsage()
    return (user + system) / 1000
  },
  rest: (ms) =>
    ms > 0
      ? new Promise((resolve) => setTimeout(resolve, ms))
      : new Promise((resolve) => setImmediate(resolve)),
}

/** What one member's share works on. */
export interface Handling {
  /** Handles bytes of the member's stream. */
  handle(bytes: Uint8Array): void
  /** Stops or starts reading the member's socket. */
  pause(isPaused: boolean): void
}

export class FairShares {
  readonly turns: Turns
  readonly #shares = new Set<Share>()

  constructor(turns: Turns = REAL_TURNS) {
    this.turns = turns
  }

  join(handling: Handling): Share {
    const share = new Share(this, handling)
    this.#shares.add(share)
    return share
  }

  leave(share: Share): void {
    share.drop()
    this.#shares.delete(share)
  }

  /** Whether anybody but `share` was heard lately. */
  isWantedBeside(share: Share): boolean {
    const sinceMs = this.turns.now() - ACTIVE_MS
    for (const other of this.#shares) if (other !== share && other.heardMs >= sinceMs) return true
    return false
  }
}

export class Share {
  /** When bytes came last. */
  heardMs = -Infinity
  readonly #all: FairShares
  readonly #handling: Handling
  #waiting: Uint8Array[] = []
  #isRunning = false
  #creditMs = SAVED_MS
  #creditAtMs: number

  constructor(all: FairShares, handling: Handling) {
    this.#all = all
    this.#handling = handling
    this.#creditAtMs = all.turns.now()
  }

  /** Bytes of the member, in their order. The first slice is handled at once. */
  deliver(chunk: Uint8Array): void {
    this.heardMs = this.#all.turns.now()
    // What is not handled within its event may lie in memory that the next event uses again.
    this.#waiting.push(this.#isRunning || chunk.length > SLICE_BYTES ? chunk.slice() : chunk)
    if (this.#isRunning) return
    // What a handler threw and nobody expected is the daemon's to report, as from any other callback.
    void this.#run().catch((error: unknown) => reportError(error))
  }

  /** The stream ended: what of it was not handled is void. */
  drop(): void {
    this.#waiting = []
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    const { turns } = this.#all
    let isPaused = false
    let turnMs = 0
    try {
      while (this.#waiting.length > 0) {
        const wantedMs = this.#wantedMs()
        if (wantedMs > 0 || turnMs >= TURN_MS) {
          if (!isPaused) this.#handling.pause((isPaused = true))
          await turns.rest(wantedMs)
          turnMs = 0
          continue
        }
        const beganMs = turns.usedMs()
        this.#handling.handle(this.#slice())
        for (let tick = 0; tick < SETTLE_TICKS; tick++) await undefined
        const tookMs = turns.usedMs() - beganMs
        this.#creditMs -= tookMs
        turnMs += tookMs
      }
    } finally {
      this.#isRunning = false
      if (isPaused) this.#handling.pause(false)
    }
  }

  /** How long the member has to rest; 0 while it has credit, or nobody else wants anything. */
  #wantedMs(): number {
    const now = this.#all.turns.now()
    this.#creditMs = Math.min(SAVED_MS, this.#creditMs + (now - this.#creditAtMs) * SHARE)
    this.#creditAtMs = now
    if (this.#creditMs > 0 || !this.#all.isWantedBeside(this)) return 0
    return Math.ceil(-this.#creditMs / SHARE) + 1
  }

  #slice(): Uint8Array {
    const chunk = this.#waiting[0]!
    if (chunk.length <= SLICE_BYTES) this.#waiting.shift()
    else this.#waiting[0] = chunk.subarray(SLICE_BYTES)
    return chunk.subarray(0, SLICE_BYTES)
  }
}
