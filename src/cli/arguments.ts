/**
 * @module cli/arguments
 *
 * What the argument parser says and does, put right: errors in the words of this program, with the nearest
 * option named, and values as they were typed.
 */

import { MvmError } from "../lib/errors.ts"
import { closest } from "./closest.ts"
import { optionName, type CommandSpec } from "./command.ts"
import { verbOf } from "./help.ts"

/** @param message what the parser said */
export function usageError(message: string, spec: CommandSpec): MvmError {
  const verb = verbOf(spec)
  const help = `mvm ${verb} --help`
  const quoted = /`([^`]*)`/.exec(message)?.[1] ?? ""
  if (message.startsWith("missing required args")) {
    return new MvmError("usage", `an argument is missing: mvm ${spec.usage}`, { hint: help })
  }
  if (message.startsWith("Unused args")) {
    return new MvmError("usage", `${quoted} is one argument too many: mvm ${spec.usage}`, { hint: help })
  }
  if (message.startsWith("Unknown option")) {
    const typed = dashed(quoted)
    const nearest = closest(typed, (spec.options ?? []).map(optionName))
    return new MvmError("usage", `mvm ${verb} has no option ${typed}`, {
      hint: nearest === undefined ? help : `did you mean ${nearest}?`,
    })
  }
  if (message.endsWith("value is missing")) {
    return new MvmError("usage", `${quoted} needs a value`, { hint: help })
  }
  return new MvmError("usage", message.replaceAll("`", ""), { hint: help })
}

/**
 * The parser makes numbers of what looks like one, and "007" then is 7. Puts back what was typed.
 *
 * @param argv the words after the verb
 */
export function asTyped(
  options: Readonly<Record<string, unknown>>,
  argv: readonly string[],
): Record<string, unknown> {
  const words = argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv
  const typed = (name: string): string[] =>
    words.flatMap((word, index) => {
      if (word === name) return words[index + 1] ?? []
      return word.startsWith(`${name}=`) ? word.slice(name.length + 1) : []
    })
  return Object.fromEntries(
    Object.entries(options).map(([key, value]) => {
      const isNumber = typeof value === "number"
      if (!isNumber && !(Array.isArray(value) && value.some((item) => typeof item === "number"))) {
        return [key, value]
      }
      const values = typed(dashed(`--${key}`))
      return [key, isNumber ? (values.at(-1) ?? value) : values]
    }),
  )
}

/** Likewise for an argument that follows a flag. */
export function argumentAsTyped(value: unknown, argv: readonly string[]): string {
  if (typeof value !== "number") return String(value)
  return argv.find((word) => word !== "" && Number(word) === value) ?? String(value)
}

/** "--logFormat" is "--log-format". */
function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}
