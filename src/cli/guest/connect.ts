/** @module cli/guest/connect */

import { isatty } from "node:tty"
import { taking } from "../../guest/services/end-of-input.ts"
import { DescriptorDuplex, readerOf, writerOf } from "../../guest/streams/descriptor-duplex.ts"
import { join } from "../../guest/streams/join.ts"
import { VisibleWriter } from "../../guest/streams/visible-writer.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { CommandSpec } from "../command.ts"
import {
  CALL_OPTIONS,
  openService,
  serviceAddress,
  sessionFacts,
  targetAndService,
} from "./service-target.ts"

const STDIN = 0
const STDOUT = 1

export const guestConnect: CommandSpec = {
  usage: "guest connect <target:service>",
  summary: "join standard input and output with a service of another VM",
  options: [
    { flags: "--raw", description: "pass control characters on to a terminal" },
    { flags: "--json", description: "report the outcome as JSON on stderr" },
    ...CALL_OPTIONS,
  ],
  examples: [
    "guest connect db:postgres",
    "guest connect db:ssh --wait 10s",
    "guest connect web:logs </dev/null | less",
  ],
  async run(call) {
    const client = await openService(serviceAddress(call, targetAndService(call.arg(0))))
    const startedMs = performance.now()
    try {
      const output = writerOf(STDOUT)
      const shown = call.flag("raw") || !isatty(STDOUT) ? output : new VisibleWriter(output)
      const own = new DescriptorDuplex(readerOf(STDIN), shown)
      // A program's input may go on after it has heard all; who types waits for nothing more.
      const meaning = isatty(STDIN) ? "end" : "close"
      const hangUp = (): void => own.stop(new MvmError("sink", "the service has said all"))
      await join(taking(own, meaning, hangUp), client.connect())
      const summary = await client.finish()
      if (!call.flag("json")) return
      const milliseconds = Math.round(performance.now() - startedMs)
      // stdout is the connection itself.
      process.stderr.write(`${JSON.stringify({ ...sessionFacts(client), ...summary, milliseconds })}\n`)
    } catch (error) {
      client.fail(asMvmError(error))
      await client.over.catch(() => {})
      throw error
    }
  },
}
