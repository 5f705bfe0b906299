/**
 * @module test/soak/local
 *
 * Many local members, many channels at once, for a while: no error, every digest right, memory flat.
 */

import { join } from "node:path"
import { BenchHost } from "../bench/host.ts"
import { anonymousBytes, flatness, type Flatness } from "./memory.ts"
import type { SoakOrder, SoakReport } from "./worker.ts"

export interface LocalSoak {
  readonly minutes: number
  readonly members: number
  readonly channels: number
  readonly note: (line: string) => void
}

export interface LocalResult {
  readonly channels: number
  readonly bytes: number
  readonly peakOpen: number
  readonly openP50Ms: number
  readonly errors: readonly string[]
  readonly mvm: Flatness
  readonly agents: Flatness
  readonly auditHolds: boolean
  readonly left: { channels: number; usedBytes: number }
}

/** One process carries this many channels well. */
const SLOTS_PER_WORKER = 125
const SAMPLE_MS = 2000
const MAX_BYTES = 4 << 20
const RING = "64K"

export async function soakLocal({ minutes, members, channels, note }: LocalSoak): Promise<LocalResult> {
  const host = await BenchHost.start("--arena", "512M", "--ring", RING)
  try {
    for (let at = 0; at < members; at++) await host.addMember(`m${at}`)
    note(`${members} members are up`)
    const untilMs = Date.now() + minutes * 60_000
    // Held so long that opening keeps up: some twenty a second.
    const holdMs = Math.min(60_000, Math.max(1000, channels * 120), minutes * 20_000)
    const rampMs = Math.min(holdMs, minutes * 15_000)
    const workers = Math.ceil(channels / SLOTS_PER_WORKER)
    const running = Array.from({ length: workers }, (_, index) => {
      const slots = Math.floor(channels / workers) + (index < channels % workers ? 1 : 0)
      return run({
        state: host.state,
        members,
        slots,
        untilMs,
        holdMs,
        rampMs,
        maxBytes: MAX_BYTES,
        seed: index + 1,
      })
    })
    const samples = { mvm: [] as number[], agents: [] as number[] }
    let peakOpen = 0
    const timer = setInterval(() => {
      samples.mvm.push(anonymousBytes(host.servePid))
      let agents = 0
      for (let at = 0; at < members; at++) agents += anonymousBytes(host.agentPid(`m${at}`))
      samples.agents.push(agents)
      peakOpen = Math.max(
        peakOpen,
        running.reduce((sum, worker) => sum + worker.open(), 0),
      )
    }, SAMPLE_MS)
    const done = await Promise.all(running.map(({ result }) => result))
    clearInterval(timer)
    const opens = done.flatMap((one) => one.opens).sort((a, b) => a - b)
    const left = await leftOver(host)
    return {
      channels: done.reduce((sum, one) => sum + one.channels, 0),
      bytes: done.reduce((sum, one) => sum + one.bytes, 0),
      peakOpen,
      openP50Ms: opens[opens.length >> 1] ?? 0,
      errors: done.flatMap((one) => one.errors),
      mvm: flatness(samples.mvm),
      agents: flatness(samples.agents),
      auditHolds: await host.run("audit", "verify"),
      left,
    }
  } finally {
    await host.stop()
  }
}

/** Ends say CLOSE after their receipt; what is still held a little later was leaked. */
async function leftOver(host: BenchHost): Promise<{ channels: number; usedBytes: number }> {
  for (let tries = 0; ; tries++) {
    const status = JSON.parse(await host.output("status", "--json")) as {
      channels: number
      arena: { sizeBytes: number; freeBytes: number }
      dedicated: { used: number }
    }
    const { arena, channels, dedicated } = status
    const left = { channels, usedBytes: arena.sizeBytes - arena.freeBytes + dedicated.used }
    if ((left.channels === 0 && left.usedBytes === 0) || tries > 50) return left
    await Bun.sleep(200)
  }
}

function run(order: SoakOrder): { result: Promise<SoakReport>; open: () => number } {
  const worker = Bun.spawn([process.execPath, join(import.meta.dir, "worker.ts"), JSON.stringify(order)], {
    stdio: ["ignore", "pipe", "inherit"],
  })
  let last: SoakReport = { channels: 0, bytes: 0, open: 0, opens: [], errors: [] }
  const result = (async (): Promise<SoakReport> => {
    const opens: number[] = []
    const errors: string[] = []
    const decoder = new TextDecoder()
    let rest = ""
    for await (const chunk of worker.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        last = JSON.parse(line) as SoakReport
        opens.push(...last.opens)
        errors.push(...last.errors)
      }
    }
    const status = await worker.exited
    if (status !== 0) errors.push(`a worker ended with status ${status}`)
    return { ...last, opens, errors }
  })()
  return { result, open: () => last.open }
}
