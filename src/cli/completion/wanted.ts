/**
 * @module cli/completion/wanted
 *
 * What may stand at the end of a command line, worked out from the table of commands alone: words that are known
 * now, and the kind of name or file that others must be asked for.
 */

import { optionName, placeholdersOf, takesValue, type CommandSpec, type OptionSpec } from "../command.ts"
import { groupsOf, isGroup, verbOf } from "../help.ts"

/** Names that only a daemon or an agent knows, and files. */
export type NameKind = "vm" | "endpoint" | "peer" | "service" | "channel" | "deposit" | "tag" | "audit-kind"
export type Kind = NameKind | "file" | "directory"

export interface Candidate {
  readonly value: string
  readonly description: string
}

export interface Wanted {
  /** All begin with what is typed. */
  readonly candidates: readonly Candidate[]
  readonly kinds: readonly Kind[]
  /** Stands before each name of `kinds`: "--vm=", "db:". */
  readonly prefix: string
  /** Follows each name: ":" where more must come. */
  readonly suffix: string
  /** What is typed of the name itself. */
  readonly typed: string
  /** Options of the line so far, for whoever looks the names up. */
  readonly options: ReadonlyMap<string, string>
  readonly isGuest: boolean
  /** The VM that a service is looked for at. */
  readonly target: string | undefined
}

/** What a placeholder of a usage line or an option stands for. A number, a text or a new name has no kind. */
const PLACEHOLDERS: Readonly<Record<string, Kind>> = {
  vm: "vm",
  name: "vm",
  from: "vm",
  to: "vm",
  target: "peer",
  source: "peer",
  service: "service",
  id: "channel",
  channel: "channel",
  deposit: "deposit",
  tag: "tag",
  file: "file",
  path: "file",
  dir: "directory",
}

/** Placeholders that stand for one of several. */
const COMPOUND: Readonly<Record<string, string>> = { places: "file|target:path" }

/** Where the word of the placeholder says too little: an argument of a command, or an option as its flags say. */
export const EXCEPTIONS: Readonly<Record<string, Kind | undefined>> = {
  "vm create <name>": undefined,
  // A path inside the VM.
  "measure approve [path]": undefined,
  "measure remove [path]": undefined,
  "--service <name>": "service",
  "--source <name>": "peer",
  "--local <name>": "endpoint",
  "--tag <name>": "tag",
  "--untag <name>": "tag",
  "--kind <word>": "audit-kind",
  // Of this system, which its own tools know.
  "--user <name>": undefined,
  "--group <name>": undefined,
}

/** @param words what follows "mvm", the last one as far as it is typed */
export function wantedAt(commands: readonly CommandSpec[], words: readonly string[]): Wanted {
  const before = words.slice(0, -1)
  const typed = words.at(-1) ?? ""
  if (before[0] === "help" || before[0] === "--help") return wantedAt(commands, words.slice(1))
  const [first, second] = before
  if (first === undefined) return only(firstWords(commands), typed)
  if (!isGroup(first)) return ofCommand(commands, first, before.slice(1), typed)
  if (second === undefined) return only(secondWords(commands, first), typed)
  return ofCommand(commands, `${first} ${second}`, before.slice(2), typed)
}

function firstWords(commands: readonly CommandSpec[]): Candidate[] {
  const single = commands.filter((spec) => !verbOf(spec).includes(" "))
  const groups = groupsOf(commands)
  return [
    ...single.map((spec) => ({ value: verbOf(spec), description: spec.summary })),
    ...groups.map(([value, description]) => ({ value, description })),
    { value: "help", description: "show options and examples of a command" },
    { value: "--help", description: "show all commands" },
    { value: "--version", description: "show the version" },
  ]
}

function secondWords(commands: readonly CommandSpec[], group: string): Candidate[] {
  return commands
    .filter((spec) => verbOf(spec).startsWith(`${group} `))
    .map((spec) => ({ value: verbOf(spec).slice(group.length + 1), description: spec.summary }))
}

function ofCommand(
  commands: readonly CommandSpec[],
  verb: string,
  before: readonly string[],
  typed: string,
): Wanted {
  const spec = commands.find((command) => verbOf(command) === verb)
  if (!spec) return only([], typed)
  const read = readWords(spec, before)
  const place = {
    ...only([], typed),
    options: read.options,
    isGuest: isGuestVerb(spec),
    target: read.args[0],
  }
  // The command that a service runs, not ours.
  if (read.isRest) return { ...place, kinds: ["file"] }
  if (read.open) return { ...ofOption(place, read.open, typed) }
  const assigned = /^(--[a-z-]+)=(.*)$/s.exec(typed)
  if (assigned) {
    const option = optionOf(spec, assigned[1] ?? "")
    const value = assigned[2] ?? ""
    return option ? ofOption({ ...place, prefix: `${assigned[1]}=`, typed: value }, option, typed) : place
  }
  if (typed.startsWith("-")) return { ...place, ...only(optionsLeft(spec, read.options), typed) }
  const argument = ofArgument(place, spec, read.args.length)
  if (!read.maybe) return argument
  const option = ofOption(place, read.maybe, typed)
  return {
    ...argument,
    candidates: [...option.candidates, ...argument.candidates],
    kinds: [...option.kinds, ...argument.kinds],
  }
}

interface ReadWords {
  readonly args: readonly string[]
  readonly options: ReadonlyMap<string, string>
  /** The option whose value comes next. */
  readonly open: OptionSpec | undefined
  /** The option whose value may come next. */
  readonly maybe: OptionSpec | undefined
  /** Behind "--". */
  readonly isRest: boolean
}

/** Reads words as the argument parser does. */
function readWords(spec: CommandSpec, words: readonly string[]): ReadWords {
  const args: string[] = []
  const options = new Map<string, string>()
  let last: OptionSpec | undefined
  for (const word of words) {
    if (word === "--") return { args, options, open: undefined, maybe: undefined, isRest: true }
    const waiting = last
    last = undefined
    if (word.startsWith("--")) {
      const [name = "", value] = word.split(/=(.*)/s)
      options.set(name, value ?? "")
      const option = optionOf(spec, name)
      if (option && value === undefined && takesValue(option) !== "never") last = option
    } else if (waiting) {
      options.set(optionName(waiting), word)
    } else if (!word.startsWith("-")) {
      args.push(word)
    }
  }
  const maybe = last && takesValue(last) === "maybe" ? last : undefined
  return { args, options, open: maybe ? undefined : last, maybe, isRest: false }
}

function ofOption(place: Wanted, option: OptionSpec, typed: string): Wanted {
  const { flags } = option
  if (option.values) {
    const values = option.values.map((value) => ({ value: `${place.prefix}${value}`, description: "" }))
    return { ...place, candidates: values.filter(({ value }) => value.startsWith(typed)) }
  }
  const kind = flags in EXCEPTIONS ? EXCEPTIONS[flags] : PLACEHOLDERS[placeholdersOf(flags)[0] ?? ""]
  return { ...place, kinds: kind ? [kind] : [] }
}

function ofArgument(place: Wanted, spec: CommandSpec, index: number): Wanted {
  const names = placeholdersOf(spec.usage)
  const last = names.at(-1)
  const name = names[index] ?? (last?.startsWith("...") ? last : undefined)
  if (name === undefined) return place
  const shown = spec.usage.match(/[<[][^>\]]*[>\]]/g)?.[names.indexOf(name)] ?? ""
  const exception = `${verbOf(spec)} ${shown}`
  if (exception in EXCEPTIONS)
    return { ...place, kinds: [EXCEPTIONS[exception]].filter((kind) => kind !== undefined) }
  const word = name.replace("...", "")
  const alternatives = (COMPOUND[word] ?? word).split("|")
  const [head = "", tail] = (alternatives.find((one) => one.includes(":")) ?? "").split(":")
  const colon = place.typed.indexOf(":")
  if (tail !== undefined && colon >= 0) {
    const kind = tail === "service" ? "service" : undefined
    const target = place.typed.slice(0, colon)
    const prefix = `${target}:`
    return { ...place, kinds: kind ? [kind] : [], prefix, typed: place.typed.slice(colon + 1), target }
  }
  const plain = alternatives.filter((one) => !one.includes(":")).map((one) => PLACEHOLDERS[one])
  const kinds = [...plain, tail === undefined ? undefined : PLACEHOLDERS[head]].filter(
    (kind) => kind !== undefined,
  )
  return { ...place, kinds, suffix: tail === undefined ? "" : ":" }
}

/** Without those that stand there already, unless they may be repeated. */
function optionsLeft(spec: CommandSpec, given: ReadonlyMap<string, string>): Candidate[] {
  const own = (spec.options ?? []).filter(
    (option) => !given.has(optionName(option)) || /may be repeated/.test(option.description),
  )
  return [
    ...own.map((option) => ({ value: optionName(option), description: option.description })),
    { value: "--help", description: "show options and examples" },
  ]
}

function optionOf(spec: CommandSpec, name: string): OptionSpec | undefined {
  return spec.options?.find((option) => optionName(option) === name)
}

function isGuestVerb(spec: CommandSpec): boolean {
  return (spec.options ?? []).some((option) => optionName(option) === "--socket")
}

function only(candidates: readonly Candidate[], typed: string): Wanted {
  return {
    candidates: candidates.filter(({ value }) => value.startsWith(typed)),
    kinds: [],
    prefix: "",
    suffix: "",
    typed,
    options: new Map(),
    isGuest: false,
    target: undefined,
  }
}
