/** @module cli/guest/serve */

import { resolve } from "node:path"
import type { CopyService } from "../../guest/copy/service.ts"
import {
  serviceOptions,
  type ServiceAction,
  type ServiceDefinition,
} from "../../guest/services/definition.ts"
import { ENDS_OF_INPUT } from "../../guest/services/end-of-input.ts"
import { ServiceServer } from "../../guest/services/server.ts"
import {
  SERVICES_FOLDER,
  readOneService,
  readServices,
  type ServicesFound,
} from "../../guest/services/service-file.ts"
import { ServiceSupervisor } from "../../guest/services/supervisor.ts"
import { parseTcp, parseUnix } from "../../guest/streams/address.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { dashed, type Call, type CommandSpec } from "../command.ts"
import { AGENT_OPTIONS, agentSocket } from "../connect.ts"
import { DAEMON_OPTIONS, beginDaemon } from "../daemon.ts"
import { note } from "../output.ts"
import { COPY_LIMIT_OPTIONS, COPY_SERVICE, copyLimits, linkPolicy } from "./copy-limits.ts"
import { nameOf } from "./transfer.ts"

const MANY = 1_000_000
const MAX_BYTES = {
  flags: "--max-bytes <size>",
  description: "the most bytes of a call, each way; with --copy: the most content put there by one",
}
/** What each kind of service has options of its own for. */
const OF_COMMANDS = ["user", "directory", "pty"]
const OF_COPIES = ["readOnly", "writeOnly", "maxFiles", "minFree", "links"]
/** All that describe one service. */
const OF_ONE = [
  ...["tcp", "unix", "copy", "source", "eof", "maxRuns", "maxTime", "maxBytes"],
  ...OF_COMMANDS,
  ...OF_COPIES,
]

export const guestServe: CommandSpec = {
  usage: "guest serve [service]",
  summary: "offer a command or a socket of this VM as a service",
  options: [
    {
      flags: "--all [dir]",
      description: `every service that a file of the folder describes (${SERVICES_FOLDER})`,
    },
    { flags: "--file <path>", description: "the service that this file describes, under the file's name" },
    { flags: "--tcp <host:port>", description: "each call is a connection to that address" },
    { flags: "--unix <path>", description: "each call is a connection to that socket" },
    {
      flags: "--copy <dir>",
      description: `let callers copy files to and from that folder (default: ${COPY_SERVICE})`,
    },
    { flags: "--read-only", description: "with --copy: from it only" },
    { flags: "--write-only", description: "with --copy: into it only" },
    ...COPY_LIMIT_OPTIONS.filter(({ flags }) => flags !== MAX_BYTES.flags).map((option) => ({
      ...option,
      description: `with --copy: ${option.description}`,
    })),
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
    MAX_BYTES,
    ...AGENT_OPTIONS,
    ...DAEMON_OPTIONS,
  ],
  examples: [
    "guest serve postgres --tcp 127.0.0.1:5432",
    "guest serve backup --user backup --max-runs 1 -- /usr/local/bin/make-backup",
    "guest serve shell --pty -- /bin/bash --login",
    "guest serve --all",
    "guest serve --copy /srv/incoming --write-only --max-bytes 10G --min-free 1G",
  ],
  async run(call) {
    if (call.given("all") || call.given("file")) return serveFiles(call)
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
    await aborted(stopping)
    await server.stop()
  },
}

/** The services of a folder or of one file, read again on SIGHUP. */
async function serveFiles(call: Call): Promise<void> {
  const read = filesOf(call)
  const { log, stopping, manager } = beginDaemon(call)
  const supervisor = new ServiceSupervisor(agentSocket(call), read, log)
  const [failure] = supervisor.load()
  if (failure && supervisor.services.length === 0) throw failure
  const reload = (): void => {
    try {
      supervisor.load()
    } catch (error) {
      const { code, message } = asMvmError(error)
      log.error("reload", { code, message })
    }
  }
  process.on("SIGHUP", reload)
  manager.ready({
    status: () => `${supervisor.services.length} services, ${supervisor.calls} calls`,
    isAlive: () => true,
  })
  await aborted(stopping)
  process.removeListener("SIGHUP", reload)
  await supervisor.stop()
}

/** @throws MvmError `usage`. */
function filesOf(call: Call): () => ServicesFound {
  const file = call.text("file")
  const isAlone =
    call.args.length === 0 && call.rest.length === 0 && !OF_ONE.some((option) => call.given(option))
  if (!isAlone || (file !== undefined && call.given("all"))) {
    const option = file === undefined ? "--all" : "--file"
    throw new MvmError("usage", `${option} takes no service, and nothing that describes one`, {
      hint: "the file says all of it",
    })
  }
  if (file !== undefined) return () => readOneService(resolve(file))
  const folder = call.flag("all") ? SERVICES_FOLDER : resolve(call.text("all") ?? SERVICES_FOLDER)
  return () => readServices(folder)
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()))
}

/** @throws MvmError `usage`. */
function definitionOf(call: Call): ServiceDefinition {
  const action = actionOf(call)
  const name = call.args[0] ?? (action.kind === "copy" ? COPY_SERVICE : call.arg(0))
  // Of a copy, what counts is the content, not what travels.
  const isBounded = call.given("maxBytes") && action.kind !== "copy"
  return {
    name: nameOf(name, "service"),
    action,
    source: call.text("source") === undefined ? undefined : nameOf(call.text("source") ?? "", "--source"),
    user: call.text("user"),
    directory: call.text("directory"),
    environment: {},
    endOfInput: call.oneOf("eof", ENDS_OF_INPUT, "close"),
    terminal: call.flag("pty"),
    limits: {
      maxRuns: call.integer("maxRuns", MANY, { min: 1, max: MANY }),
      maxMs: call.given("maxTime") ? call.durationMs("maxTime", 0) : undefined,
      maxBytes: isBounded ? call.sizeBytes("maxBytes", 0) : undefined,
    },
  }
}

function actionOf(call: Call): ServiceAction {
  const [program, ...words] = call.rest
  const tcp = call.text("tcp")
  const unix = call.text("unix")
  const folder = call.text("copy")
  const given = [program, tcp, unix, folder].filter((one) => one !== undefined)
  if (given.length !== 1) {
    throw new MvmError("usage", "one of --tcp, --unix, --copy and -- COMMAND says what the service is", {
      hint: "mvm guest serve SERVICE -- COMMAND, or --tcp HOST:PORT",
    })
  }
  if (folder === undefined) refuseOptions(call, OF_COPIES, "is for --copy")
  if (program !== undefined) return { kind: "command", command: [program, ...words] }
  refuseOptions(call, OF_COMMANDS, "is for a command")
  if (folder !== undefined) return { kind: "copy", copy: copyOf(call, folder) }
  const address = tcp === undefined ? parseUnix(unix ?? "", "--unix") : parseTcp(tcp, "--tcp")
  return { kind: "socket", address }
}

function copyOf(call: Call, folder: string): CopyService {
  const [readOnly, writeOnly] = [call.flag("readOnly"), call.flag("writeOnly")]
  if (readOnly && writeOnly) throw new MvmError("usage", "--read-only and --write-only exclude each other")
  return {
    folder: resolve(folder),
    mayRead: !writeOnly,
    mayWrite: !readOnly,
    limits: copyLimits(call),
    links: linkPolicy(call),
  }
}

function refuseOptions(call: Call, options: readonly string[], why: string): void {
  for (const option of options) {
    if (call.given(option)) throw new MvmError("usage", `--${dashed(option)} ${why}`)
  }
}
