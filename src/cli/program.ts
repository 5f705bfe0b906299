/**
 * @module cli/program
 *
 * From argv to a verb and its exit status.
 */

import { cac, type CAC } from "cac"
import { MvmError, STATUS, asMvmError, errnoOf } from "../lib/errors.ts"
import { VERSION } from "../lib/version.ts"
import { argumentAsTyped, asTyped, usageError } from "./arguments.ts"
import { closest } from "./closest.ts"
import { COMPLETE_WORD, answerCompletion } from "./completion/answer.ts"
import { Call, type CommandSpec } from "./command.ts"
import { helpOf, isGroup, overview, verbOf } from "./help.ts"
import { columnsOf, note, print, printError } from "./output.ts"

const HELP_WORDS = new Set(["help", "--help", "-h"])
const VERSION_WORDS = new Set(["version", "--version", "-v", "-V"])

/** @param argv without runtime and script @returns the exit status */
export async function runProgram(commands: readonly CommandSpec[], argv: readonly string[]): Promise<number> {
  try {
    return await dispatch(commands, argv)
  } catch (error) {
    return failed(asMvmError(error), ({ status }) => status)
  }
}

function failed(failure: MvmError, statusOf: (failure: MvmError) => number): number {
  // A reader of a listing that left (mvm ... | head) is no news to anybody; one of a transfer is.
  if (failure.code === "sink" && failure.message === "cannot write to stdout: EPIPE") return statusOf(failure)
  printError(failure)
  const { cause } = failure
  // Only a fault of this program itself needs a trace; the system's errors say what they mean.
  if (failure.code === "internal" && cause instanceof Error && errnoOf(cause) === undefined) {
    for (const line of (cause.stack ?? "").split("\n")) note(line)
  }
  return statusOf(failure)
}

async function dispatch(commands: readonly CommandSpec[], argv: readonly string[]): Promise<number> {
  const [first, second, ...others] = argv
  if (first === undefined) return misuse(overview(commands, columnsOf(2)))
  if (first === COMPLETE_WORD) {
    await answerCompletion(commands, argv.slice(1))
    return STATUS.ok
  }
  if (VERSION_WORDS.has(first)) return show(`mvm ${VERSION}`)
  if (HELP_WORDS.has(first)) {
    // "mvm help vm create" is "mvm vm create --help"
    return second === undefined
      ? show(overview(commands, columnsOf(1)))
      : dispatch(commands, [...argv.slice(1), "--help"])
  }
  if (first.startsWith("-")) {
    throw new MvmError("usage", `${first} comes before the command`, { hint: "mvm COMMAND [OPTIONS]" })
  }
  if (!isGroup(first)) return perform(commands, first, argv.slice(1))
  if (second === undefined) return misuse(overview(commands, columnsOf(2), first))
  if (HELP_WORDS.has(second)) return show(overview(commands, columnsOf(1), first))
  return perform(commands, `${first} ${second}`, others)
}

function show(text: string): number {
  print(text)
  return STATUS.ok
}

function misuse(text: string): number {
  for (const line of text.split("\n")) note(line, "")
  return STATUS.usage
}

function perform(commands: readonly CommandSpec[], verb: string, rest: readonly string[]): Promise<number> {
  const spec = commands.find((command) => verbOf(command) === verb)
  if (!spec) throw unknownVerb(verb, commands)
  const own = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest
  if (own.includes("--help") || own.includes("-h")) return Promise.resolve(show(helpOf(spec, columnsOf(1))))
  const { statusOf } = spec
  if (!statusOf) return execute(spec, verb, rest)
  return execute(spec, verb, rest).catch((error: unknown) => failed(asMvmError(error), statusOf))
}

async function execute(spec: CommandSpec, verb: string, rest: readonly string[]): Promise<number> {
  let status: number | void = undefined
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
      new Call(
        args.map((value) => argumentAsTyped(value, rest)),
        asTyped(options, rest),
        Array.isArray(after) ? after.map(String) : [],
      ),
    )
  })
  try {
    cli.parse(["mvm", "mvm", verb, ...rest], { run: false })
    await cli.runMatchedCommand()
  } catch (failure) {
    if (failure instanceof Error && failure.name === "CACError") throw usageError(failure.message, spec)
    throw failure
  }
  return status ?? STATUS.ok
}

function unknownVerb(verb: string, commands: readonly CommandSpec[]): MvmError {
  const [group = "", word] = verb.split(" ")
  const verbs = commands.map(verbOf)
  const message = `there is no command mvm ${verb}`
  if (word === undefined) {
    const groups = verbs.flatMap((name) => (name.includes(" ") ? (name.split(" ")[0] ?? []) : name))
    const nearest = closest(verb, groups)
    const hint = nearest === undefined ? "mvm --help lists all commands" : `did you mean mvm ${nearest}?`
    return new MvmError("usage", message, { hint })
  }
  const words = verbs.filter((name) => name.startsWith(`${group} `)).map((name) => name.split(" ")[1] ?? "")
  const nearest = closest(word, words)
  const hint =
    nearest === undefined ? `mvm ${group} --help lists its commands` : `did you mean mvm ${group} ${nearest}?`
  return new MvmError("usage", message, { hint })
}
