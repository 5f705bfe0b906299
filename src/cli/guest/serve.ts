/** @module cli/guest/serve */

import {
  serviceOptions,
  type ServiceAction,
  type ServiceDefinition,
} from "../../guest/services/definition.ts"
import { ENDS_OF_INPUT } from "../../guest/services/end-of-input.ts"
import { ServiceServer } from "../../guest/services/server.ts"
import { parseTcp, parseUnix } from "../../guest/streams/address.ts"
import { MvmError } from "../../lib/errors.ts"
import type { Call, CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket } from "../connect.ts"
import { DAEMON_OPTIONS, beginDaemon } from "../daemon.ts"
import { note } from "../output.ts"
import { nameOf } from "./transfer.ts"

const MANY = 1_000_000

export const guestServe: CommandSpec = {
  usage: "guest serve [service]",
  summary: "offer a command or a socket of this VM as a service",
  options: [
    { flags: "--tcp <host:port>", description: "each call is a connection to that address" },
    { flags: "--unix <path>", description: "each call is a connection to that socket" },
    { flags: "--source <name>", description: "take calls of that VM only (default: whom the policy lets)" },
    { flags: "--user <name>", description: "run the command as that user" },
    { flags: "--directory <dir>", description: "run the command there" },
    { flags: "--pty", description: "let callers have a terminal (exec --pty)" },
    {
      flags: "--eof <what>",
      description: "when the caller's input ends: close, end, ignore",
      values: ENDS_OF_INPUT,
    },
    { flags: "--max-runs <n>", description: "calls at once" },
    { flags: "--max-time <time>", description: "the longest a call may take" },
    { flags: "--max-bytes <size>", description: "the most bytes of a call, each way" },
    ...AGENT_OPTIONS,
    ...DAEMON_OPTIONS,
  ],
  examples: [
    "guest serve postgres --tcp 127.0.0.1:5432",
    "guest serve backup --user backup --max-runs 1 -- /usr/local/bin/make-backup",
    "guest serve shell --pty -- /bin/bash --login",
  ],
  async run(call) {
    const definition = definitionOf(call)
    const options = serviceOptions(definition)
    const { log, stopping, manager } = beginDaemon(call)
    const server = new ServiceServer(agentSocket(call), options, log, () => {
      note(`serving ${definition.name}`)
      manager.ready({
        status: () => `${server.sessions} sessions, ${server.calls} calls`,
        isAlive: () => true,
      })
    })
    await new Promise((resolve) => stopping.addEventListener("abort", resolve))
    await server.stop()
  },
}

/** @throws MvmError `usage`. */
function definitionOf(call: Call): ServiceDefinition {
  return {
    name: nameOf(call.arg(0), "service"),
    action: actionOf(call),
    source: call.text("source") === undefined ? undefined : nameOf(call.text("source") ?? "", "--source"),
    user: call.text("user"),
    directory: call.text("directory"),
    environment: {},
    endOfInput: call.oneOf("eof", ENDS_OF_INPUT, "close"),
    terminal: call.flag("pty"),
    limits: {
      maxRuns: call.integer("maxRuns", MANY, { min: 1, max: MANY }),
      maxMs: call.given("maxTime") ? call.durationMs("maxTime", 0) : undefined,
      maxBytes: call.given("maxBytes") ? call.sizeBytes("maxBytes", 0) : undefined,
    },
  }
}

function actionOf(call: Call): ServiceAction {
  const [program, ...words] = call.rest
  const tcp = call.text("tcp")
  const unix = call.text("unix")
  const given = [program, tcp, unix].filter((one) => one !== undefined)
  if (given.length !== 1) {
    throw new MvmError("usage", "one of --tcp, --unix and -- COMMAND says what the service is", {
      hint: "mvm guest serve SERVICE -- COMMAND, or --tcp HOST:PORT",
    })
  }
  if (program !== undefined) return { kind: "command", command: [program, ...words] }
  for (const option of ["user", "directory", "pty"]) {
    if (call.given(option)) throw new MvmError("usage", `--${option} is for a command`)
  }
  const address = tcp === undefined ? parseUnix(unix ?? "", "--unix") : parseTcp(tcp, "--tcp")
  return { kind: "socket", address }
}
