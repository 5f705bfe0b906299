/**
 * @module cli/program
 *
 * From argv to a verb and its exit status.
 */

import { cac, type CAC } from "cac"
import { MvmError, STATUS, asMvmError } from "../lib/errors.ts"
import { VERSION } from "../lib/version.ts"
import { Call, type CommandSpec } from "./command.ts"
import { note, print, printError } from "./output.ts"

/** Words that begin a two-word verb. */
const GROUPS = new Set(["vm", "measure", "policy", "audit", "channel", "guest"])

/** @param argv without runtime and script @returns the exit status */
export async function runProgram(commands: readonly CommandSpec[], argv: readonly string[]): Promise<number> {
  try {
    return await dispatch(commands, argv)
  } catch (error) {
    const failure = asMvmError(error)
    // A reader of a listing that left (mvm ... | head) is no news to anybody; one of a transfer is.
    if (failure.code === "sink" && failure.message === "cannot write to stdout: EPIPE") return failure.status
    printError(failure)
    if (failure.code === "internal" && failure.cause instanceof Error) note(`${failure.cause.stack ?? ""}`)
    return failure.status
  }
}

async function dispatch(commands: readonly CommandSpec[], argv: readonly string[]): Promise<number> {
  const [first, second, ...others] = argv
  if (first === "--version" || first === "-v") {
    print(`mvm ${VERSION}`)
    return STATUS.ok
  }
  if (first === undefined || first === "--help" || first === "-h" || first === "help") {
    print(overview(commands))
    return first === undefined ? STATUS.usage : STATUS.ok
  }
  const grouped = GROUPS.has(first)
  if (grouped && (second === undefined || second.startsWith("-"))) {
    print(overview(commands.filter((command) => command.usage.startsWith(`${first} `))))
    return second === undefined ? STATUS.usage : STATUS.ok
  }
  const verb = grouped ? `${first} ${second}` : first
  const spec = commands.find((command) => verbOf(command) === verb)
  if (!spec) throw unknownVerb(verb, commands)
  const rest = grouped ? others : argv.slice(1)
  if (rest.includes("--help") || rest.includes("-h")) {
    print(helpOf(spec))
    return STATUS.ok
  }
  return execute(spec, verb, rest)
}

async function execute(spec: CommandSpec, verb: string, rest: readonly string[]): Promise<number> {
  let status: number | void = undefined
  let failure: unknown
  const cli: CAC = cac("mvm")
  const command = cli.command(spec.usage, spec.summary)
  for (const { flags, description, default: preset } of spec.options ?? []) {
    command.option(flags, description, preset === undefined ? {} : { default: preset })
  }
  command.action(async (...values: unknown[]) => {
    const options = values.pop() as Record<string, unknown>
    const args = values.flat().filter((value) => value !== undefined)
    const after = options["--"]
    status = await spec.run(
      new Call(args.map(String), options, Array.isArray(after) ? after.map(String) : []),
    )
  })
  try {
    cli.parse(["mvm", "mvm", verb, ...rest], { run: false })
    await cli.runMatchedCommand()
  } catch (error) {
    failure = error
  }
  if (failure instanceof MvmError) throw failure
  if (failure instanceof Error && failure.name === "CACError") {
    throw new MvmError("usage", failure.message.replaceAll("`", "").toLowerCase(), {
      hint: `mvm ${verb} --help`,
    })
  }
  if (failure !== undefined) throw failure
  return status ?? STATUS.ok
}

/** "vm create <name>" is the verb "vm create". */
export function verbOf(spec: CommandSpec): string {
  return spec.usage.replace(/[<[].*$/, "").trim()
}

function unknownVerb(verb: string, commands: readonly CommandSpec[]): MvmError {
  const nearest = commands
    .map((command) => ({ name: verbOf(command), distance: editDistance(verb, verbOf(command)) }))
    .sort((a, b) => a.distance - b.distance)[0]
  const hint =
    nearest && nearest.distance <= 3 ? `did you mean mvm ${nearest.name}?` : "mvm --help lists all commands"
  return new MvmError("usage", `there is no command mvm ${verb}`, { hint })
}

function overview(commands: readonly CommandSpec[]): string {
  const width = Math.max(...commands.map((command) => command.usage.length))
  const lines = commands.map((command) => `  mvm ${command.usage.padEnd(width)}  ${command.summary}`)
  return [
    `mvm ${VERSION}: attested channels between the VMs of one host`,
    "",
    ...lines,
    "",
    "mvm COMMAND --help shows options and examples.",
  ].join("\n")
}

export function helpOf(spec: CommandSpec): string {
  const lines = [`mvm ${spec.usage}`, "", spec.summary]
  const options = spec.options ?? []
  if (options.length > 0) {
    const width = Math.max(...options.map(({ flags }) => flags.length))
    lines.push("", "options:")
    for (const { flags, description, default: preset } of options) {
      lines.push(
        `  ${flags.padEnd(width)}  ${description}${preset === undefined ? "" : ` (default ${preset})`}`,
      )
    }
  }
  lines.push("", "examples:", ...spec.examples.map((example) => `  mvm ${example}`))
  return lines.join("\n")
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const substitute = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(substitute, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
