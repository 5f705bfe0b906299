/**
 * @module bench/latency
 *
 * A 64-byte sealed echo over an open channel with both ends spinning, beside an echo over TCP on loopback written
 * for the same runtime; and over a real channel whose ends had gone to sleep, so that a KICK through both agents and
 * the manager wakes them.
 */

import { join } from "node:path"
import { KIND } from "../../src/channel/record.ts"
import { AgentClient } from "../../src/guest/agent-client.ts"
import { ChannelEnd } from "../../src/guest/channel-end.ts"
import { BenchHost } from "./host.ts"
import { figure, quantile, ratios, type BenchOptions, type Figure } from "./measure.ts"
import { openPair, type Pair } from "./ring-pair.ts"

const MESSAGE_BYTES = 64
const ECHOES = 20_000
const TCP_ECHOES = 4_000
const IDLE_ECHOES = 40
const WARM_ECHOES = 1500

/** Longer than any end looks before it sleeps. */
const IDLE_GAP_MS = 25

export async function bench({ rounds, note }: BenchOptions): Promise<Figure[]> {
  using pair = openPair({ ringBytes: 2 ** 18, recordBytes: 2 ** 16, isolation: "arena", task: "echo" })
  const tcp = await TcpEcho.start()
  const p50: number[] = []
  const p99: number[] = []
  const tcp50: number[] = []
  try {
    echo(pair, ECHOES)
    await tcp.echo(TCP_ECHOES)
    for (let index = 0; index < rounds; index++) {
      const ours = echo(pair, ECHOES)
      p50.push(quantile(ours, 0.5) / 1000)
      p99.push(quantile(ours, 0.99) / 1000)
      tcp50.push(quantile(await tcp.echo(TCP_ECHOES), 0.5) / 1000)
      note(`round ${index + 1} of ${rounds}`)
    }
  } finally {
    tcp[Symbol.dispose]()
  }
  const idle50 = await idleEcho(rounds, note)
  return [
    figure("latency.hot_p50_us", "us", p50, "at most 8"),
    figure("latency.hot_p99_us", "us", p99, "at most 60"),
    figure("latency.vs_tcp", "", ratios(p50, tcp50), "at most 0.15"),
    figure("latency.tcp_p50_us", "us", tcp50),
    figure("latency.idle_p50_us", "us", idle50, "at most 350"),
  ]
}

/** Medians of the round trips of a real channel between two local members, in microseconds. */
async function idleEcho(rounds: number, note: BenchOptions["note"]): Promise<number[]> {
  const host = await BenchHost.start()
  try {
    for (const name of ["asker", "answerer"]) await host.addMember(name)
    const peer = Bun.spawn(
      [process.execPath, join(import.meta.dir, "echo-peer.ts"), host.socketOf("answerer")],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    )
    const agent = await AgentClient.connect(host.socketOf("asker"))
    const request = {
      target: "answerer",
      service: "echo",
      role: "duplex",
      digest: "chain",
      waitMs: 10_000,
    } as const
    const end = await ChannelEnd.open(agent, request)
    end.sealer.trySeal(KIND.HANDSHAKE, end.handshake)
    end.flush()
    // As in a manager that has been up for a while: its code is compiled.
    for (let index = 0; index < WARM_ECHOES; index++) {
      await Bun.sleep(2)
      await echoOnce(end)
    }
    const medians: number[] = []
    for (let round = 0; round < rounds; round++) {
      const times = new Float64Array(IDLE_ECHOES)
      for (let index = 0; index < IDLE_ECHOES; index++) {
        await Bun.sleep(IDLE_GAP_MS)
        times[index] = await echoOnce(end)
      }
      medians.push(quantile(times.sort(), 0.5) / 1000)
      note(`idle round ${round + 1} of ${rounds}`)
    }
    end.sealer.trySeal(KIND.EOF, new Uint8Array(0))
    end.flush()
    await peer.exited
    end.close()
    agent.close()
    return medians
  } finally {
    await host.stop()
  }
}

async function echoOnce(end: ChannelEnd): Promise<number> {
  const start = Bun.nanoseconds()
  end.sealer.trySeal(KIND.DATA, new Uint8Array(MESSAGE_BYTES).fill(5))
  end.flush()
  for (;;) {
    const record = end.opener.tryOpen()
    if (record?.kind === KIND.DATA) return Bun.nanoseconds() - start
    if (record === null) await end.awaitData()
  }
}

/** Times of `count` round trips, sorted, in nanoseconds. */
function echo({ sealer, opener }: Pair, count: number): Float64Array {
  const message = new Uint8Array(MESSAGE_BYTES).fill(5)
  const times = new Float64Array(count)
  for (let index = 0; index < count; index++) {
    const start = Bun.nanoseconds()
    sealer.trySeal(KIND.DATA, message)
    sealer.flush()
    while (opener.tryOpen() === null) Atomics.pause()
    times[index] = Bun.nanoseconds() - start
  }
  return times.sort()
}

class TcpEcho implements Disposable {
  readonly #server: Bun.Subprocess
  readonly #socket: Bun.Socket
  #answered: () => void = () => {}

  private constructor(server: Bun.Subprocess, socket: Bun.Socket) {
    this.#server = server
    this.#socket = socket
  }

  static async start(): Promise<TcpEcho> {
    const server = Bun.spawn([process.execPath, join(import.meta.dir, "tcp-echo-peer.ts")], {
      stdin: "ignore",
      stdout: "pipe",
    })
    const { value } = await server.stdout.getReader().read()
    let self: TcpEcho | undefined
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: Number(new TextDecoder().decode(value)),
      socket: { data: () => (self as TcpEcho).#answered() },
    })
    socket.setNoDelay(true)
    self = new TcpEcho(server, socket)
    return self
  }

  /** Times of `count` round trips, sorted, in nanoseconds. */
  async echo(count: number): Promise<Float64Array> {
    const message = new Uint8Array(MESSAGE_BYTES).fill(5)
    const times = new Float64Array(count)
    const done = Promise.withResolvers<void>()
    let index = 0
    let start = 0
    const next = (): void => {
      start = Bun.nanoseconds()
      this.#socket.write(message)
    }
    this.#answered = () => {
      times[index] = Bun.nanoseconds() - start
      if (++index === count) done.resolve()
      else next()
    }
    next()
    await done.promise
    return times.sort()
  }

  [Symbol.dispose](): void {
    this.#socket.end()
    this.#server.kill()
  }
}
