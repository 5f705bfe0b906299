/**
 * @module test/integration/unprivileged-session
 *
 * A host with two endpoints and a transfer, in whatever user's name this runs. Prints one JSON object: the outcome,
 * and what the kernel says of each process.
 */

import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { TestHost } from "./host.ts"
import { processesOf } from "./processes.ts"

const host = await TestHost.start({ members: ["a", "b"] })
try {
  const content = new Uint8Array(500_000).fill(9)
  const out = join(host.folder, "delivered")
  const receiver = await host.recv("b", out)
  const sender = host.send("a", "b", content)
  const statuses = [await sender.over(), await receiver.over()]
  const field = (pid: number, name: string): string =>
    new RegExp(`^${name}:\\s*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? ""
  const processes = processesOf(host.folder).map(({ pid, line }) => ({
    program: line.split(" ")[0]!.split("/").at(-1)!,
    uid: field(pid, "Uid").split(/\s+/)[1],
    capabilities: field(pid, "CapEff"),
    canGain: field(pid, "NoNewPrivs") !== "1",
  }))
  const isWhole = Buffer.compare(readFileSync(out), content) === 0
  const mode = (statSync(host.state).mode & 0o777).toString(8)
  process.stdout.write(`${JSON.stringify({ statuses, isWhole, mode, processes })}\n`)
} finally {
  await host.end()
}
