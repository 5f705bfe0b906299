/**
 * @module cli/guest/ping
 *
 * How long each step takes until a byte of another VM is here.
 */

import { ping, type PingTimes, type Pong } from "../../guest/ping/ping.ts"
import { toHex } from "../../lib/bytes.ts"
import { MvmError, STATUS, asMvmError } from "../../lib/errors.ts"
import type { CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, JSON_OPTION, agentSocket } from "../connect.ts"
import { pause, untilInterrupted } from "../interruption.ts"
import { note, print, printError, printJson, printTable } from "../output.ts"
import { nameOf } from "./transfer.ts"

const INTERVAL_MS = 1000
const TIMEOUT_MS = 30_000

const STAGES: Readonly<Record<keyof PingTimes, string>> = {
  policy: "policy",
  ownQuote: "own quote",
  appraisal: "appraisal",
  peerQuote: "peer's quote",
  grant: "grant",
  firstByte: "first byte",
  total: "total",
}

export const guestPing: CommandSpec = {
  usage: "guest ping <target>",
  summary: "open a channel to another VM's agent and close it, and show the time of each step",
  options: [
    { flags: "--count <n>", description: "so many (default 1)" },
    { flags: "--interval <time>", description: "between two (default 1s)" },
    { flags: "--timeout <time>", description: "for one (default 30s)" },
    ...AGENT_OPTIONS,
    JSON_OPTION,
  ],
  examples: ["guest ping db", "guest ping db --count 10 --interval 100ms", "guest ping db --json"],
  async run(call) {
    const target = nameOf(call.arg(0), "target")
    const count = call.integer("count", 1, { min: 1, max: 1_000_000 })
    const intervalMs = call.durationMs("interval", INTERVAL_MS)
    const timeoutMs = call.durationMs("timeout", TIMEOUT_MS)
    const json = call.flag("json")
    const seen: PingTimes[] = []
    let failure: MvmError | undefined
    let asked = 0
    const cut = untilInterrupted()
    for (let number = 1; number <= count; number += 1) {
      if (number > 1 && (await pause(intervalMs, cut))) break
      try {
        asked += 1
        const pong = await ping({ agentSocket: agentSocket(call), target, timeoutMs, cut })
        seen.push(pong.times)
        if (json) printJson({ number, target, ...factsOf(pong), milliseconds: rounded(pong.times) })
        else print(lineOf(pong))
      } catch (error) {
        failure = asMvmError(error)
        if (cut.aborted) break
        // One that was asked for alone fails as any command does.
        if (count === 1) throw failure
        if (json) printJson({ number, target, error: failure.code, message: failure.message })
        else printError(failure)
      }
    }
    if (count > 1 && !json) summary(seen, asked)
    return cut.aborted ? STATUS.interrupted : (failure?.status ?? STATUS.ok)
  },
}

function factsOf({ peer, decision }: Pong): Record<string, string | null> {
  return {
    peer: peer.name,
    peerVerdict: peer.verdict,
    peerMeasurement: peer.kind,
    peerProgram: peer.program.path,
    channel: toHex(decision.channelId),
    rule: decision.rule,
    transport: decision.transport,
    isolation: decision.isolation ?? null,
  }
}

function lineOf({ peer, decision, times }: Pong): string {
  const steps = Object.entries(STAGES)
    .filter(([stage]) => stage !== "total")
    .map(([stage, words]) => `${words} ${ms(times[stage as keyof PingTimes])}`)
  const how = [decision.transport, decision.isolation].filter(Boolean).join(", ")
  return `${peer.name} is ${peer.verdict} (${how}): ${ms(times.total)} ms: ${steps.join(", ")}`
}

function summary(seen: readonly PingTimes[], asked: number): void {
  note(`${seen.length} of ${asked} answered`)
  if (seen.length === 0) return
  const rows = Object.entries(STAGES).map(([stage, words]) => {
    const sorted = seen.map((times) => times[stage as keyof PingTimes]).sort((a, b) => a - b)
    return [words, sorted[0], sorted[Math.floor(sorted.length / 2)], sorted.at(-1)].map((cell) =>
      typeof cell === "number" ? ms(cell) : (cell ?? ""),
    )
  })
  printTable(["STEP, MS", "LEAST", "MEDIAN", "MOST"], rows)
}

function rounded(times: PingTimes): Record<string, number> {
  return Object.fromEntries(Object.entries(times).map(([stage, value]) => [stage, Number(ms(value))]))
}

function ms(milliseconds: number): string {
  return milliseconds.toFixed(milliseconds < 10 ? 2 : 1)
}
