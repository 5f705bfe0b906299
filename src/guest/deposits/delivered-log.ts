/**
 * @module guest/deposits/delivered-log
 *
 * Which deposits this machine has given out, kept across restarts of the agent and, where the disk is, of the
 * machine, so that none is given out twice. One that was begun and never finished (the command died between) is
 * remembered as such: nobody knows how much of it somebody saw.
 *
 * ```
 *   (unknown) --first byte goes out--> begun --last byte went out--> delivered --the MVM has the receipt--> settled
 * ```
 */

import { mkdirSync } from "node:fs"
import { dirname } from "node:path"
import { toHex, utf8 } from "../../lib/bytes.ts"
import { random } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { readWhole, writeDurably } from "../../platform/durable-file.ts"

const MAX_BYTES = 4 * 1024 * 1024
/** Older ones have expired at any MVM long before so many came. */
const MAX_ENTRIES = 10_000
const STATES = ["begun", "delivered", "settled"] as const

export type DeliveryState = (typeof STATES)[number]

interface Stored {
  readonly memoryId: string
  /** Oldest first: hex id and state */
  readonly deposits: readonly (readonly [string, DeliveryState])[]
}

export class DeliveredLog {
  /** 16 bytes: another one means that what was here before is forgotten. */
  readonly memoryId: Uint8Array
  readonly #path: string
  readonly #states: Map<string, DeliveryState>

  private constructor(path: string, memoryId: Uint8Array, states: Map<string, DeliveryState>) {
    this.#path = path
    this.memoryId = memoryId
    this.#states = states
  }

  /** @throws MvmError `state` for a file that is none of ours, `io`, `no_space` where it cannot be kept */
  static open(path: string): DeliveredLog {
    const bytes = readWhole(path, { maxBytes: MAX_BYTES, secret: true })
    if (bytes) {
      const { memoryId, deposits } = parse(path, bytes)
      return new DeliveredLog(path, Uint8Array.fromHex(memoryId), new Map(deposits))
    }
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    const log = new DeliveredLog(path, random(16), new Map())
    log.#write()
    return log
  }

  /** @param key hex of a deposit's id */
  stateOf(key: string): DeliveryState | undefined {
    return this.#states.get(key)
  }

  /** It is on disk when this returns. @throws MvmError `io`, `no_space` */
  set(key: string, state: DeliveryState): void {
    if (this.#states.get(key) === state) return
    this.#states.delete(key)
    this.#states.set(key, state)
    for (const oldest of this.#states.keys()) {
      if (this.#states.size <= MAX_ENTRIES) break
      this.#states.delete(oldest)
    }
    this.#write()
  }

  #write(): void {
    const stored: Stored = { memoryId: toHex(this.memoryId), deposits: [...this.#states] }
    writeDurably(this.#path, utf8(JSON.stringify(stored)))
  }
}

function parse(path: string, bytes: Uint8Array): Stored {
  try {
    const { memoryId, deposits } = JSON.parse(Buffer.from(bytes).toString()) as Stored
    const isWhole =
      /^[0-9a-f]{32}$/.test(memoryId) &&
      deposits.every(([key, state]) => /^[0-9a-f]{32}$/.test(key) && STATES.includes(state))
    if (isWhole) return { memoryId, deposits }
  } catch {
    // Said below.
  }
  throw new MvmError("state", `${path} is damaged: which deposits were delivered is not known`, {
    hint: `remove it, and use mvm guest recv --deposited --again ID where that is meant`,
  })
}
