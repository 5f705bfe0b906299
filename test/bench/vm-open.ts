/**
 * @module bench/vm-open
 *
 * What opening a channel between two VMs takes the MVM, by its own meters: in the arena, in memory that is plugged
 * already, and in memory that has to be plugged first.
 */

import type { Console } from "../e2e/console.ts"
import type { Managed } from "../e2e/managed.ts"
import { figure, median, ratios, type Figure } from "./measure.ts"

const OPENS = 5
const TIMEOUT_MS = 120_000

export interface OpenRows {
  readonly arena: number[]
  readonly pooled: number[]
  readonly plugged: number[]
}

export interface OpenSetting {
  readonly managed: Managed
  readonly left: Console
  readonly right: Console
  /** Where the MVM serves its metrics */
  readonly metrics: string
}

/** One round of each. The policy is another afterwards. */
export async function measureOpens(setting: OpenSetting, rows: OpenRows): Promise<void> {
  const { managed } = setting
  const open = (): Promise<number> => openMs(setting)
  const opens = async (): Promise<number> => {
    const taken: number[] = []
    for (let count = 0; count < OPENS; count += 1) taken.push(await open())
    return median(taken)
  }
  await managed.allow("left right arena")
  rows.arena.push(await opens())
  // A change of the policy takes all kept memory back: the first channel has it plugged, the next ones find it.
  await managed.allow("left right dedicated")
  rows.plugged.push(await open())
  rows.pooled.push(await opens())
}

export function openFigures({ arena, pooled, plugged }: OpenRows): Figure[] {
  return [
    figure("vm.open_arena_ms", "ms", arena),
    figure("vm.open_pooled_ms", "ms", pooled),
    figure("vm.open_plugged_ms", "ms", plugged),
    figure("vm.open_pooled_vs_arena", "", ratios(pooled, arena), "at most 1.2"),
  ]
}

/** From the region to the open channel. */
async function openMs({ left, right, metrics }: OpenSetting): Promise<number> {
  const before = await meter(metrics)
  const receiving = right.must("mvm guest recv left --quiet >/dev/null", { timeoutMs: TIMEOUT_MS })
  await left.must("echo x | mvm guest send right --wait 60s --quiet", { timeoutMs: TIMEOUT_MS })
  await receiving
  const after = await meter(metrics)
  if (after.count !== before.count + 1) throw new Error("more than one channel was opened")
  return (after.sum - before.sum) * 1000
}

async function meter(unix: string): Promise<{ sum: number; count: number }> {
  const answer = await fetch("http://mvm/metrics", { unix })
  const text = await answer.text()
  const value = (name: string): number => {
    const line = text.split("\n").find((one) => one.startsWith(`mvm_open_duration_seconds_${name} `))
    return Number(line?.split(" ")[1] ?? 0)
  }
  return { sum: value("sum"), count: value("count") }
}
