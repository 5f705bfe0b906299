/**
 * @module bench/open
 *
 * From ALLOC to the first byte at the other end, both ends measured by real swtpm, agents warm; and how many
 * channels a second eight members open, use and close.
 */

import { AgentClient } from "../../src/guest/agent-client.ts"
import { ChannelEnd } from "../../src/guest/channel-end.ts"
import { KIND } from "../../src/channel/record.ts"
import { BenchHost } from "./host.ts"
import { figure, median, type Bench, type Figure } from "./measure.ts"

const MEMBERS = 8
const OPENS_PER_ROUND = 40
const RATE_SECONDS = 2

/** Code is compiled as it gets hot, over the first thousands of opens; steady is when that brings no more. */
const WARM_SECONDS = 4
const WARM_WINDOWS = 12
const STEADY_GAIN = 1.03

export const bench: Bench = async ({ rounds, note }) => {
  const host = await BenchHost.start()
  try {
    const names = Array.from({ length: MEMBERS }, (_, index) => `m${index}`)
    for (const name of names) await host.addMember(name)
    note(`open: ${MEMBERS} members are up`)
    const pairs = pairsOf(names)
    for (const pair of pairs) await openOnce(host, pair)
    await untilSteady(host, pairs, note)
    const latencies: number[][] = []
    const rates: number[] = []
    for (let round = 0; round < rounds; round += 1) {
      const taken: number[] = []
      for (let count = 0; count < OPENS_PER_ROUND; count += 1) taken.push(await openOnce(host, pairs[0]!))
      latencies.push(taken)
      rates.push(await rate(host, pairs))
    }
    const p99 = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length * 0.99)]!
    return [
      figure("open.p50_ms", "ms", latencies.map(median), "at most 8"),
      figure("open.p99_ms", "ms", latencies.map(p99)),
      figure("open.per_second", "/s", rates, "at least 120"),
    ] satisfies Figure[]
  } finally {
    await host.stop()
  }
}

export type Pair = readonly [asker: string, answerer: string]

export function pairsOf(names: readonly string[]): Pair[] {
  return Array.from(
    { length: names.length / 2 },
    (_, index) => [names[2 * index]!, names[2 * index + 1]!] as const,
  )
}

/** One channel, opened, given one byte, and closed with its receipt. @returns ms from ALLOC to that byte */
export async function openOnce(host: BenchHost, [asker, answerer]: Pair): Promise<number> {
  const [a, b] = await Promise.all([
    AgentClient.connect(host.socketOf(asker)),
    AgentClient.connect(host.socketOf(answerer)),
  ])
  const offered = Promise.withResolvers<void>()
  const answering = answer(b, () => offered.resolve())
  await offered.promise
  const startedMs = performance.now()
  const end = await ChannelEnd.open(a, {
    target: answerer,
    service: "bench",
    role: "send",
    digest: "chain",
    waitMs: 1000,
  })
  end.sealer.trySeal(KIND.HANDSHAKE, end.handshake)
  end.sealer.trySeal(KIND.DATA, new Uint8Array(1))
  end.sealer.trySeal(KIND.EOF, new Uint8Array(0))
  end.flush()
  const { firstByteMs, done } = await answering
  a.send("FIN", {
    direction: 0,
    lengthBytes: 1,
    records: end.sealer.chain.records,
    digest: end.sealer.chain.digest(),
  })
  await done()
  await a.until(() => a.peerReceipt)
  end.close()
  a.close()
  return firstByteMs - startedMs
}

async function answer(
  agent: AgentClient,
  onOffered: () => void,
): Promise<{ firstByteMs: number; done(): Promise<void> }> {
  const end = await ChannelEnd.offer(
    agent,
    { service: "bench", source: undefined, role: "receive" },
    onOffered,
  )
  let firstByteMs = 0
  while (!end.opener.ended) {
    const record = end.opener.tryOpen()
    if (!record) await end.awaitData()
    else if (record.kind === KIND.DATA) firstByteMs = performance.now()
  }
  const done = async (): Promise<void> => {
    await agent.until(() => agent.peerFin)
    agent.send("RECEIPT", {
      direction: 0,
      lengthBytes: end.opener.plaintextBytes,
      records: end.opener.chain.records,
      digest: end.opener.chain.digest(),
    })
    await agent.until(() => agent.logged > 0)
    end.close()
    agent.close()
  }
  return { firstByteMs, done }
}

/** Opens channels until two windows in a row are no faster than the best before them: one may be the machine's. */
async function untilSteady(
  host: BenchHost,
  pairs: readonly Pair[],
  note: (line: string) => void,
): Promise<void> {
  let best = 0
  let noFaster = 0
  for (let window = 0; window < WARM_WINDOWS && noFaster < 2; window += 1) {
    const now = await rate(host, pairs, WARM_SECONDS)
    note(`open: warming, ${now.toFixed(0)} a second`)
    noFaster = now < best * STEADY_GAIN ? noFaster + 1 : 0
    best = Math.max(best, now)
  }
}

/** Channels a second with every pair busy. */
async function rate(host: BenchHost, pairs: readonly Pair[], seconds = RATE_SECONDS): Promise<number> {
  const startedMs = performance.now()
  const endMs = startedMs + seconds * 1000
  let count = 0
  await Promise.all(
    pairs.map(async (pair) => {
      while (performance.now() < endMs) {
        await openOnce(host, pair)
        count += 1
      }
    }),
  )
  return count / ((performance.now() - startedMs) / 1000)
}
