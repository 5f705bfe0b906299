/**
 * @module cli/command
 *
 * What a verb is: its words, options, examples and what it does. Help, completion and dispatch derive from it.
 */

import { MvmError } from "../lib/errors.ts"
import { parseDuration, parseSize } from "../lib/units.ts"

/** A timer counts milliseconds in 31 bits: one that is set for longer fires at once. */
const MAX_TIMER_MS = 24 * 86_400_000

export interface OptionSpec {
  /** As cac takes it: "--wait <time>", "-r, --recursive" */
  readonly flags: string
  readonly description: string
  readonly default?: string | number | boolean
  /** All values it takes, where they are few. */
  readonly values?: readonly string[]
}

export interface CommandSpec {
  /** Words and arguments: "vm create <name>" */
  readonly usage: string
  /** Of the overview, where the first word does not say it. */
  readonly section?: "host"
  readonly summary: string
  readonly options?: readonly OptionSpec[]
  /** Without the leading "mvm". */
  readonly examples: readonly string[]
  /** The exit status of a failure, for a command whose own statuses mean something else. */
  readonly statusOf?: (failure: MvmError) => number
  /** The exit status; undefined is 0. */
  run(call: Call): Promise<number | void>
}

/** One invocation. */
export class Call {
  readonly args: readonly string[]
  /** What follows "--". */
  readonly rest: readonly string[]
  readonly #options: Readonly<Record<string, unknown>>

  constructor(args: readonly string[], options: Readonly<Record<string, unknown>>, rest: readonly string[]) {
    this.args = args
    this.#options = options
    this.rest = rest
  }

  /** The same invocation with some options set otherwise. */
  with(options: Readonly<Record<string, unknown>>): Call {
    return new Call(this.args, { ...this.#options, ...options }, this.rest)
  }

  /** Argument `index`, which the usage line requires. */
  arg(index: number): string {
    const value = this.args[index]
    if (value === undefined) throw new MvmError("usage", "an argument is missing")
    return value
  }

  /** Whether the option stands there, with or without a value. */
  given(name: string): boolean {
    const value = this.#options[name]
    return value !== undefined && value !== false
  }

  flag(name: string): boolean {
    return this.#options[name] === true
  }

  text(name: string): string | undefined {
    const value = this.#options[name]
    if (value === undefined || value === null || value === false) return undefined
    if (value === true) throw new MvmError("usage", `--${dashed(name)} needs a value`)
    return String(Array.isArray(value) ? value.at(-1) : value)
  }

  texts(name: string): string[] {
    const value = this.#options[name]
    if (value === undefined) return []
    return (Array.isArray(value) ? value : [value]).map(String)
  }

  oneOf<const V extends string>(name: string, values: readonly V[], fallback: V): V {
    const text = this.text(name)
    if (text === undefined) return fallback
    const found = values.find((value) => value === text)
    if (found !== undefined) return found
    throw new MvmError("usage", `--${dashed(name)}: ${text} is none of ${values.join(", ")}`)
  }

  integer(name: string, fallback: number, range: { min: number; max: number }): number {
    const text = this.text(name)
    if (text === undefined) return fallback
    const value = Number(text)
    if (Number.isInteger(value) && value >= range.min && value <= range.max) return value
    throw new MvmError(
      "usage",
      `--${dashed(name)}: ${text} is not a whole number from ${range.min} to ${range.max}`,
    )
  }

  sizeBytes(name: string, fallback: number): number {
    const text = this.text(name)
    return text === undefined ? fallback : parseSize(text, `--${dashed(name)}`)
  }

  durationMs(name: string, fallback: number): number {
    const value = this.#options[name]
    if (value === undefined || typeof value === "boolean") return fallback
    const milliseconds = parseDuration(String(value), `--${dashed(name)}`)
    if (milliseconds <= MAX_TIMER_MS) return milliseconds
    throw new MvmError("usage", `--${dashed(name)}: ${String(value)} is longer than 24 days`)
  }
}

/** "--wait [time]" is "--wait", and "-r, --recursive" is "--recursive". */
export function optionName({ flags }: Pick<OptionSpec, "flags">): string {
  return /--[a-z-]+/.exec(flags)?.[0] ?? flags
}

/** Whether a value may follow the option; "--wait [time]" can do without. */
export function takesValue({ flags }: OptionSpec): "always" | "maybe" | "never" {
  return flags.includes("<") ? "always" : flags.includes("[") ? "maybe" : "never"
}

/** "vm approve <vm> [path]" has the placeholders "vm" and "path". */
export function placeholdersOf(usage: string): string[] {
  return [...usage.matchAll(/[<[]([^>\]]*)[>\]]/g)].map((match) => match[1] ?? "")
}

/** "maxBytes" is "max-bytes". */
export function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}
