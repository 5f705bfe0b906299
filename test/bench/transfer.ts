/**
 * @module bench/transfer
 *
 * One file through `send` and `recv`, for benchmarks that compare with that.
 */

import type { BenchHost } from "./host.ts"
import { pipeline } from "./tls-peer.ts"

export const SENDER = "sender"
export const RECEIVER = "receiver"

/** One transfer, GB/s from the sender's start to the receiver's end, as for the peers. */
export async function transfer(host: BenchHost, file: string, through: "file" | "cats"): Promise<number> {
  const state = ["--state", host.state, "--quiet"]
  const receive = [host.mvm, "guest", "recv", SENDER, "--local", RECEIVER, ...state]
  const receiver = Bun.spawn(through === "file" ? receive : pipeline(receive, ["cat"]), {
    stdin: "ignore",
    stdout: Bun.file("/dev/null"),
    stderr: "inherit",
  })
  await waiting(host, RECEIVER)
  const send = [
    host.mvm,
    "guest",
    "send",
    RECEIVER,
    ...(through === "file" ? [file] : []),
    "--local",
    SENDER,
    ...state,
  ]
  const start = Bun.nanoseconds()
  const sender = Bun.spawn(through === "file" ? send : pipeline(["cat", file], send), {
    stdin: "ignore",
    stderr: "inherit",
  })
  const statuses = await Promise.all([sender.exited, receiver.exited])
  const seconds = (Bun.nanoseconds() - start) / 1e9
  if (statuses.some((status) => status !== 0))
    throw new Error(`transfer ended with ${statuses.join(" and ")}`)
  return Bun.file(file).size / seconds / 1e9
}

async function waiting(host: BenchHost, name: string): Promise<void> {
  for (;;) {
    const status = JSON.parse(await host.output("guest", "status", "--local", name, "--json")) as {
      offers: string[]
    }
    if (status.offers.length > 0) return
    await Bun.sleep(10)
  }
}
