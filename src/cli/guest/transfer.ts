/**
 * @module cli/guest/transfer
 *
 * What send and recv share: the outcome for people and for programs, and ending a channel that failed.
 */

import { AgentClient } from "../../guest/agent-client.ts"
import type { ChannelEnd } from "../../guest/channel-end.ts"
import type { TransferSummary } from "../../guest/pump.ts"
import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { formatDuration, formatSize } from "../../lib/units.ts"
import { isName } from "../../wire/schema.ts"
import type { Call } from "../command.ts"
import { ProgressLine, note } from "../output.ts"

const DEFAULT_SERVICE = "default"

/** The service this invocation names. @throws MvmError `usage`. */
export function serviceOf(call: Call): string {
  return nameOf(call.text("service") ?? DEFAULT_SERVICE, "--service")
}

/** `text`, a word of the command line, as the name of a VM or a service. @throws MvmError `usage`. */
export function nameOf(text: string, what: string): string {
  if (isName(text)) return text
  throw new MvmError("usage", `${what}: ${text} is not a name`, {
    hint: "letters, digits, . _ -, at most 64, not beginning with . or -",
  })
}

export interface TransferOptions {
  readonly socket: string
  readonly quiet: boolean
  readonly json: boolean
  readonly label: string
  readonly totalBytes: number | undefined
  /** Open or wait for the channel. */
  begin(agent: AgentClient): Promise<ChannelEnd>
  run(end: ChannelEnd, progress: (bytes: number) => void): Promise<TransferSummary>
}

/** One whole transfer, from the agent's socket to the agreed end. */
export async function transfer(options: TransferOptions): Promise<void> {
  const agent = await AgentClient.connect(options.socket)
  let line: ProgressLine | undefined
  let end: ChannelEnd | undefined
  try {
    end = await options.begin(agent)
    const startedMs = performance.now()
    const progress = new ProgressLine(options.label, options.totalBytes, options.quiet)
    line = progress
    const summary = await options.run(end, (bytes) => progress.update(bytes))
    progress.end()
    end.close()
    report(options, end, summary, performance.now() - startedMs)
  } catch (error) {
    line?.end()
    throw end ? await end.abort(error) : error
  } finally {
    agent.close()
  }
}

function report(options: TransferOptions, end: ChannelEnd, summary: TransferSummary, tookMs: number): void {
  const { decision, peer } = end
  if (options.json) {
    // stdout may be the data itself, so the facts go to stderr, one object on one line.
    const facts = {
      channel: toHex(decision.channelId),
      peer: peer.name,
      peerVerdict: peer.verdict,
      peerMeasurement: peer.kind,
      peerBoot: toHex(peer.bootId),
      peerProgram: peer.program.path,
      peerProgramDigest: toHex(peer.program.digest),
      service: decision.service,
      rule: decision.rule,
      transport: decision.transport,
      isolation: decision.isolation ?? null,
      bytes: summary.bytes,
      records: summary.records,
      digest: toHex(summary.digest),
      digestCovers: summary.content ? "records and content" : "records",
      content: summary.content ? toHex(summary.content) : null,
      milliseconds: Math.round(tookMs),
    }
    process.stderr.write(`${JSON.stringify(facts)}\n`)
    return
  }
  if (options.quiet) return
  note(
    `${options.label}: ${formatSize(summary.bytes)} in ${formatDuration(tookMs)}, ` +
      `${peer.name} is ${peer.verdict} (${peer.program.path}), digests agree` +
      (decision.transport === "relay" ? ", relayed: an end maps no shared memory" : ""),
  )
}
