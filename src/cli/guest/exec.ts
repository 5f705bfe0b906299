/** @module cli/guest/exec */

import { isatty } from "node:tty"
import { constants } from "node:os"
import { RemoteRun, type ExecEnds } from "../../guest/services/exec.ts"
import { checkArg, type TerminalRequest } from "../../guest/services/requests.ts"
import { SIGNALS, type PassedSignal } from "../../guest/services/side.ts"
import { readerOf, writerOf, type ByteWriter } from "../../guest/streams/descriptor-duplex.ts"
import { VisibleWriter } from "../../guest/streams/visible-writer.ts"
import { MvmError, STATUS, asMvmError, type ErrorCode } from "../../lib/errors.ts"
import { makeRaw, windowSize } from "../../platform/terminal.ts"
import type { Call, CommandSpec } from "../command.ts"
import { CALL_OPTIONS, openService, serviceAddress, sessionFacts } from "./service-target.ts"
import { nameOf } from "./transfer.ts"

const [STDIN, STDOUT, STDERR] = [0, 1, 2] as const

/** What stands in for the run's status when there is none. */
const EXEC_STATUS = { failed: 125, refused: 126, absent: 127 } as const
const REFUSED: ReadonlySet<number> = new Set([STATUS.denied, STATUS.attestation])
const ENDING: ReadonlySet<PassedSignal> = new Set(["SIGINT", "SIGTERM", "SIGHUP"])
const ABSENT: ReadonlySet<ErrorCode> = new Set(["no_receiver", "no_target", "not_found"])

export const guestExec: CommandSpec = {
  usage: "guest exec <target> <service> [arg]",
  summary: "run a service of another VM: its streams, its exit status",
  options: [
    { flags: "--pty", description: "in a terminal of its own, for interactive programs" },
    { flags: "--raw", description: "pass control characters on to this terminal (with --pty always)" },
    { flags: "--json", description: "report the outcome as JSON on stderr" },
    ...CALL_OPTIONS,
  ],
  examples: ["guest exec db backup >backup.tar", "guest exec web restart nginx", "guest exec db shell --pty"],
  statusOf,
  async run(call) {
    const to = { target: nameOf(call.arg(0), "target"), service: nameOf(call.arg(1), "service") }
    const arg = call.args[2]
    if (arg !== undefined) checkArg(arg)
    const client = await openService(serviceAddress(call, to))
    const startedMs = performance.now()
    const terminal = call.flag("pty") ? terminalHere() : undefined
    const restore = terminal && isatty(STDIN) ? makeRaw(STDIN) : () => {}
    // Whatever ends this process, the user's terminal is as it was.
    process.once("exit", restore)
    let endedBy: PassedSignal | undefined
    try {
      const run = new RemoteRun(client, { arg, terminal }, endsOf(call))
      const release = passSignals(run, terminal !== undefined, (name) => {
        endedBy = name
        client.fail(new MvmError("interrupted", "interrupted"))
      })
      const outcome = await run.over.finally(release)
      restore()
      const summary = await client.finish()
      if (call.flag("json")) {
        const milliseconds = Math.round(performance.now() - startedMs)
        const facts = { ...sessionFacts(client), ...summary, ...outcome, milliseconds }
        process.stderr.write(`${JSON.stringify(facts)}\n`)
      }
      return outcome.status
    } catch (error) {
      restore()
      client.fail(asMvmError(error))
      await client.over.catch(() => {})
      if (endedBy) return 128 + constants.signals[endedBy]
      throw error
    } finally {
      process.removeListener("exit", restore)
    }
  },
}

/** A status of this program's own could be one of the run's; these are kept for that. */
function statusOf({ code, status }: MvmError): number {
  if (status === STATUS.interrupted) return status
  if (ABSENT.has(code)) return EXEC_STATUS.absent
  return REFUSED.has(status) ? EXEC_STATUS.refused : EXEC_STATUS.failed
}

function terminalHere(): TerminalRequest {
  const size = windowSize(STDIN) ?? windowSize(STDOUT) ?? windowSize(STDERR) ?? { columns: 80, rows: 24 }
  return { name: (process.env["TERM"] ?? "dumb").slice(0, 64), ...size }
}

function endsOf(call: Call): ExecEnds {
  const isRaw = call.flag("raw") || call.flag("pty")
  const shown = (fd: number): ByteWriter =>
    isRaw || !isatty(fd) ? writerOf(fd) : new VisibleWriter(writerOf(fd))
  return { input: readerOf(STDIN), output: shown(STDOUT), errors: shown(STDERR) }
}

/**
 * Signals to this process become signals to the run. The second of those that end programs is for this process: a
 * run that does not end keeps no caller.
 *
 * @returns what takes that back
 */
function passSignals(
  run: RemoteRun,
  hasTerminal: boolean,
  onSecond: (name: PassedSignal) => void,
): () => void {
  const handlers = new Map<NodeJS.Signals, () => void>()
  for (const name of SIGNALS) {
    let count = 0
    handlers.set(name, () => {
      count += 1
      if (count > 1 && ENDING.has(name)) onSecond(name)
      else run.signal(name)
    })
  }
  if (hasTerminal) {
    handlers.set("SIGWINCH", () => {
      const size = windowSize(STDIN) ?? windowSize(STDOUT)
      if (size) run.resize(size.columns, size.rows)
    })
  }
  for (const [name, handle] of handlers) process.on(name, handle)
  return () => {
    for (const [name, handle] of handlers) process.removeListener(name, handle)
  }
}
