/**
 * @module test/fuzz/watcher
 *
 * Runs a worker and watches it from outside: an input that costs more than a second of CPU, a process that grows
 * past a gigabyte and one that dies are findings, and the search goes on in a new worker without that target's
 * turn being lost.
 */

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Scratch, type Trying } from "./scratch.ts"
import type { WorkerOrder, WorkerReport } from "./worker.ts"
import { ALL_TARGETS } from "./targets.ts"

export const HANG_CPU_MS = 1000
export const MAX_RESIDENT_BYTES = 1 << 30

const POLL_MS = 100
const CLOCK_TICK_MS = 10
const PAGE_BYTES = 4096

export interface WatchedFinding {
  readonly target: string
  readonly what: string
  readonly stack: string
  readonly input: Uint8Array
}

export interface WatchEvents {
  onProgress(tried: Readonly<Record<string, number>>, outcomes: number): void
  onFinding(finding: WatchedFinding): void
}

/** Resolves when the worker is done or was ended; with whether it got to its end. */
export async function watchWorker(order: WorkerOrder, events: WatchEvents): Promise<boolean> {
  const scratch = Scratch.create(order.scratch)
  const worker = Bun.spawn([process.execPath, join(import.meta.dir, "worker.ts"), JSON.stringify(order)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  })
  let done = false
  let killed = false
  const found = (trying: Trying | undefined, what: string): void => {
    const target = trying ? ALL_TARGETS[trying.target]!.name : "none"
    events.onFinding({ target, what, stack: "", input: trying?.input ?? new Uint8Array(0) })
  }
  const timer = setInterval(() => {
    const fault = inspect(worker.pid, scratch.read())
    if (!fault) return
    killed = true
    found(fault.trying, fault.what)
    worker.kill("SIGKILL")
  }, POLL_MS)
  const since = new Map<number, { number: number; cpuMs: number }>()
  const inspect = (
    pid: number,
    trying: Trying | undefined,
  ): { trying: Trying | undefined; what: string } | undefined => {
    const usage = usageOf(pid)
    if (!usage || killed) return undefined
    if (usage.residentBytes > MAX_RESIDENT_BYTES) return { trying, what: "more than 1 GiB of memory" }
    if (!trying) return void since.clear()
    const begun = since.get(0)
    if (begun?.number !== trying.number) since.set(0, { number: trying.number, cpuMs: usage.cpuMs })
    else if (usage.cpuMs - begun.cpuMs > HANG_CPU_MS) return { trying, what: "more than a second of CPU" }
    return undefined
  }
  try {
    await eachLine(worker.stdout, (line) => {
      const report = JSON.parse(line) as WorkerReport
      if (report.kind === "progress") events.onProgress(report.tried, report.outcomes)
      else if (report.kind === "finding")
        events.onFinding({ ...report, input: Uint8Array.fromHex(report.input) })
      else done = true
    })
    await worker.exited
  } finally {
    clearInterval(timer)
    worker.kill("SIGKILL")
  }
  if (!done && !killed) found(scratch.read(), `the process died (${worker.signalCode ?? worker.exitCode})`)
  return done
}

/** CPU time and resident memory of a process; its mapped scratch file is small. */
function usageOf(pid: number): { cpuMs: number; residentBytes: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    const cpuMs = (Number(fields[11]) + Number(fields[12])) * CLOCK_TICK_MS
    return { cpuMs, residentBytes: Number(fields[21]) * PAGE_BYTES }
  } catch {
    return undefined
  }
}

async function eachLine(stream: ReadableStream<Uint8Array>, onLine: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder()
  let rest = ""
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) onLine(line)
  }
}
