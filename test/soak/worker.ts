/**
 * @module test/soak/worker
 *
 * A process that keeps a number of channels between members open, one after another in each slot.
 *
 *   worker.ts '{"state":PATH,"members":N,"slots":N,"untilMs":N,"holdMs":N,"rampMs":N,"maxBytes":N,"seed":N}'
 */

import { localPaths } from "../../src/platform/local-paths.ts"
import { seeded } from "../ring/fresh-region.ts"
import { exchange } from "./exchange.ts"

export interface SoakOrder {
  readonly state: string
  readonly members: number
  readonly slots: number
  /** Milliseconds since 1970. */
  readonly untilMs: number
  /** How long a channel is held, up to. */
  readonly holdMs: number
  /** Time in which the first channels are opened. */
  readonly rampMs: number
  readonly maxBytes: number
  readonly seed: number
}

export interface SoakReport {
  readonly channels: number
  readonly bytes: number
  readonly open: number
  readonly opens: readonly number[]
  readonly errors: readonly string[]
}

const REPORT_MS = 1000

const order = JSON.parse(process.argv[2] ?? "") as SoakOrder
const random = seeded(order.seed)
let [channels, bytes, open, serial] = [0, 0, 0, 0]
let opens: number[] = []
let errors: string[] = []

function report(): void {
  process.stdout.write(`${JSON.stringify({ channels, bytes, open, opens, errors } satisfies SoakReport)}\n`)
  opens = []
  errors = []
}

/** Many short ones, some long. */
function lengthBytes(): number {
  const kind = random(10)
  if (kind === 0) return 0
  if (kind < 6) return random(4096)
  return kind < 9 ? random(Math.min(order.maxBytes, 100_000)) : random(order.maxBytes)
}

/** @param after how long it waits first: not all open at once */
async function slot(after: number): Promise<void> {
  await Bun.sleep(after)
  while (Date.now() < order.untilMs) {
    const from = random(order.members)
    const to = (from + 1 + random(order.members - 1)) % order.members
    const content = new Uint8Array(lengthBytes())
    const salt = random(256)
    for (let at = 0; at < content.length; at++) content[at] = (at * 31 + salt) ^ (at >> 8)
    serial += 1
    const leftMs = Math.max(0, order.untilMs - Date.now())
    try {
      const openMs = await exchange({
        fromSocket: localPaths(order.state, `m${from}`).agent,
        toSocket: localPaths(order.state, `m${to}`).agent,
        to: `m${to}`,
        service: `s${order.seed}-${serial}`,
        content,
        holdMs: Math.min(leftMs, order.holdMs / 2 + random(order.holdMs / 2 + 1)),
        onOpen: (isOpen) => {
          open += isOpen ? 1 : -1
        },
      })
      channels += 1
      bytes += content.length
      opens.push(openMs)
    } catch (error) {
      errors.push(`m${from} to m${to}: ${(error as Error).message}`)
      await Bun.sleep(200)
    }
  }
}

const timer = setInterval(report, REPORT_MS)
await Promise.all(
  Array.from({ length: order.slots }, (_, index) => slot((index / order.slots) * order.rampMs)),
)
clearInterval(timer)
report()
