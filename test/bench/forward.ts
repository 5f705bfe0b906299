/**
 * @module bench/forward
 *
 * `forward` and `serve` beside `send` and `recv`: the same bytes from one small program to another, over one stream
 * and over eight at once; and how long a connection takes to open when its session is there.
 */

import { join } from "node:path"
import { BenchHost } from "./host.ts"
import { figure, quantile, ratios, type Bench } from "./measure.ts"
import { TlsPeer, freePort } from "./tls-peer.ts"
import { RECEIVER, SENDER, transfer } from "./transfer.ts"

const LENGTH_BYTES = 2 * 2 ** 30
const STREAMS = 8
const BLOCK_BYTES = "262144"
const OPENS = 200
/** Long enough for both ends to have gone to sleep. */
const IDLE_MS = 20

export const bench: Bench = async ({ rounds, note }) => {
  // For its file; what it measures itself is asked for elsewhere.
  using source = await TlsPeer.start(LENGTH_BYTES)
  const host = await BenchHost.start()
  const greeter = greet()
  const begun: Forwarded[] = []
  const begin = async (kind: Parameters<typeof Forwarded.start>[1]): Promise<Forwarded> => {
    const forwarded = await Forwarded.start(host, kind)
    begun.push(forwarded)
    return forwarded
  }
  try {
    for (const name of [SENDER, RECEIVER]) await host.addMember(name)
    const unix = await begin("unix")
    const tcp = await begin("tcp")
    const opens = await begin({ greeter: greeter.port })
    const rows = { send: row(), one: row(), eight: row(), tcp: row(), hot: row(), idle: row() }
    for (let round = 0; round < rounds; round += 1) {
      rows.send.push(await transfer(host, source.file, "cats"))
      rows.one.push(await unix.carry(source.file, 1))
      rows.eight.push(await unix.carry(source.file, STREAMS))
      rows.tcp.push(await tcp.carry(source.file, 1))
      rows.hot.push(await openMs(opens.address, 0))
      rows.idle.push(await openMs(opens.address, IDLE_MS))
      note(`forward: round ${round + 1} of ${rounds}`)
    }
    return [
      figure("forward.send_recv_gb_s", "GB/s", rows.send),
      figure("forward.stream_gb_s", "GB/s", rows.one),
      figure("forward.eight_gb_s", "GB/s", rows.eight),
      figure("forward.tcp_gb_s", "GB/s", rows.tcp),
      figure("forward.stream_vs_send", "", ratios(rows.one, rows.send), "at least 0.8"),
      figure("forward.eight_vs_send", "", ratios(rows.eight, rows.send), "at least 0.8"),
      figure("forward.eight_vs_one", "", ratios(rows.eight, rows.one), "at least 1"),
      figure("forward.open_p50_ms", "ms", rows.idle, "at most 1"),
      figure("forward.open_hot_p50_ms", "ms", rows.hot),
    ]
  } finally {
    for (const forwarded of begun) await forwarded.stop()
    greeter.stop()
    await host.stop()
  }
}

function row(): number[] {
  return []
}

/** A service that takes what comes, or greets, and the forward that leads to it. */
class Forwarded {
  /** Where clients connect, as socat says it */
  readonly address: string
  readonly #processes: Bun.Subprocess[]

  private constructor(address: string, processes: Bun.Subprocess[]) {
    this.address = address
    this.#processes = processes
  }

  static async start(host: BenchHost, kind: "unix" | "tcp" | { greeter: number }): Promise<Forwarded> {
    const name = typeof kind === "string" ? kind : "greeter"
    const state = ["--state", host.state]
    const sink = join(host.state, `${name}-sink`)
    const listen = kind === "unix" ? join(host.state, `${name}-listen`) : `127.0.0.1:${freePort()}`
    const port = typeof kind === "string" ? freePort() : kind.greeter
    const processes: Bun.Subprocess[] = []
    if (typeof kind === "string") {
      const where = kind === "unix" ? `UNIX-LISTEN:${sink}` : `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr`
      processes.push(spawn(["socat", "-u", "-b", BLOCK_BYTES, `${where},fork`, "OPEN:/dev/null"]))
    }
    const to = kind === "unix" ? ["--unix", sink] : ["--tcp", `127.0.0.1:${port}`]
    processes.push(spawn([host.mvm, "guest", "serve", name, ...to, "--local", RECEIVER, ...state]))
    const words = [
      "guest",
      "forward",
      listen,
      `${RECEIVER}:${name}`,
      "--wait",
      "10s",
      "--local",
      SENDER,
      ...state,
    ]
    const forward = Bun.spawn([host.mvm, ...words, "--json"], { stdio: ["ignore", "pipe", "inherit"] })
    processes.push(forward)
    // Its first line says that it listens.
    await (forward.stdout as ReadableStream<Uint8Array>).getReader().read()
    return new Forwarded(kind === "unix" ? `UNIX-CONNECT:${listen}` : `TCP:${listen}`, processes)
  }

  /** Sends the file once, `streams` connections each a part of it: GB/s until the last byte was taken. */
  async carry(file: string, streams: number): Promise<number> {
    const lengthBytes = Bun.file(file).size / streams
    const start = Bun.nanoseconds()
    const senders = Array.from({ length: streams }, (_, index) =>
      // Both ways, so that it ends when the other side has closed: after the last byte.
      spawn([
        ...["socat", "-t", "60", "-b", BLOCK_BYTES],
        `OPEN:${file},rdonly,seek=${index * lengthBytes},readbytes=${lengthBytes}!!OPEN:/dev/null,wronly`,
        this.address,
      ]),
    )
    for (const sender of senders) {
      if ((await sender.exited) !== 0) throw new Error("socat failed")
    }
    return (lengthBytes * streams) / (Bun.nanoseconds() - start)
  }

  async stop(): Promise<void> {
    for (const child of this.#processes.toReversed()) {
      child.kill("SIGTERM")
      await child.exited
    }
  }
}

function spawn(words: readonly string[]): Bun.Subprocess {
  return Bun.spawn([...words], { stdio: ["ignore", "ignore", "ignore"] })
}

/** Says a byte to whoever connects. */
function greet(): { port: number; stop(): void } {
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.write("!")
      },
      data() {},
    },
  })
  return { port: listener.port, stop: () => listener.stop(true) }
}

/** Median time from connecting to the first byte of the service, over an open session. */
async function openMs(address: string, pauseMs: number): Promise<number> {
  const [, port = ""] = address.replace("TCP:", "").split(":")
  const times: number[] = []
  for (let index = 0; index < OPENS; index += 1) {
    if (pauseMs > 0) await Bun.sleep(pauseMs)
    const came = Promise.withResolvers<void>()
    const start = Bun.nanoseconds()
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: Number(port),
      socket: { data: () => came.resolve(), close: () => came.reject(new Error("closed")) },
    })
    await came.promise
    times.push((Bun.nanoseconds() - start) / 1e6)
    socket.end()
  }
  return quantile(
    times.toSorted((a, b) => a - b),
    0.5,
  )
}
