/**
 * @module cli/help
 *
 * The overview and the help of one command, wrapped to the width of the reader's terminal.
 */

import { VERSION } from "../lib/version.ts"
import type { CommandSpec } from "./command.ts"

/** Labels longer than this stand on a line of their own. */
const MAX_LABEL = 32
/** Narrower than this, text is not put beside labels. */
const MIN_TEXT = 24
const INDENT = "  "

/** Not a word that anybody types. */
const HOST_SECTION = "(host)"

/** First words of two-word verbs, and what their section of the overview is called. */
const SECTIONS: Readonly<Record<string, string>> = {
  "": "the host daemon",
  vm: "VMs and local endpoints",
  measure: "what they may run",
  policy: "who may talk to whom",
  channel: "open channels",
  deposit: "what was left for a VM",
  audit: "what happened",
  guest: "inside a VM, or on the host with --local NAME",
  [HOST_SECTION]: "from the host itself, as the member named host",
}

const STATUSES =
  "Exit status: 0 done and verified, 1 failure, 2 wrong usage, 3 unreachable or out of time, " +
  "4 attestation failed, 5 integrity, 6 denied by policy, 7 revoked while running."

/** Words that begin a two-word verb. */
export function isGroup(word: string): boolean {
  return word !== "" && word !== HOST_SECTION && Object.hasOwn(SECTIONS, word)
}

/** Those words with what their section of the overview is called, where there are commands of them. */
export function groupsOf(commands: readonly CommandSpec[]): [word: string, title: string][] {
  return Object.entries(SECTIONS).filter(
    ([word]) => isGroup(word) && commands.some((spec) => groupOf(spec) === word),
  )
}

/** The commands by section, in the order of the overview. */
export function sectionsOf(
  commands: readonly CommandSpec[],
): { word: string; title: string; members: readonly CommandSpec[] }[] {
  return Object.entries(SECTIONS)
    .map(([word, title]) => ({ word, title, members: commands.filter((spec) => groupOf(spec) === word) }))
    .filter(({ members }) => members.length > 0)
}

/** "vm create <name>" is the verb "vm create". */
export function verbOf(spec: CommandSpec): string {
  return spec.usage.replace(/[<[].*$/, "").trim()
}

/** All commands by section, or one section. @param columns width to wrap at */
export function overview(commands: readonly CommandSpec[], columns: number, only?: string): string {
  const lines =
    only === undefined ? wrap(`mvm ${VERSION}: attested channels between the VMs of one host`, columns) : []
  const label = (spec: CommandSpec): string => `mvm ${spec.usage}`
  const width = Math.max(
    ...commands.map((spec) => label(spec).length).filter((length) => length <= MAX_LABEL),
  )
  for (const { word, title, members } of sectionsOf(commands)) {
    if (only !== undefined && only !== word) continue
    if (lines.length > 0) lines.push("")
    lines.push(...wrap(`${title}:`, columns))
    lines.push(
      ...rows(
        members.map((spec) => [label(spec), spec.summary]),
        columns,
        width,
      ),
    )
  }
  lines.push("", ...wrap("mvm COMMAND --help shows options and examples.", columns))
  if (only === undefined) lines.push(...wrap(STATUSES, columns))
  return lines.join("\n")
}

/** @param columns width to wrap at */
export function helpOf(spec: CommandSpec, columns: number): string {
  const lines = [`mvm ${spec.usage}`, "", ...wrap(spec.summary, columns)]
  const options = spec.options ?? []
  if (options.length > 0) {
    const described = options.map(({ flags, description, default: preset }): [string, string] => [
      flags,
      preset === undefined ? description : `${description} (default ${preset})`,
    ])
    lines.push("", "options:", ...rows(described, columns))
  }
  lines.push("", "examples:", ...spec.examples.map((example) => `${INDENT}mvm ${example}`))
  return lines.join("\n")
}

function groupOf(spec: CommandSpec): string {
  if (spec.section === "host") return HOST_SECTION
  const word = spec.usage.split(" ")[0] ?? ""
  return isGroup(word) ? word : ""
}

/** Labels with text beside them, the text wrapped under itself. */
function rows(
  pairs: readonly (readonly [string, string])[],
  columns: number,
  width = Math.min(MAX_LABEL, Math.max(...pairs.map(([label]) => label.length))),
): string[] {
  const left = INDENT.length + width + 2
  if (columns - left < MIN_TEXT) {
    return pairs.flatMap(([label, text]) => [
      `${INDENT}${label}`,
      ...wrap(text, columns - 2 * INDENT.length).map((line) => `${INDENT}${INDENT}${line}`),
    ])
  }
  return pairs.flatMap(([label, text]) => {
    const [first = "", ...more] = wrap(text, columns - left)
    const others = more.map((line) => `${" ".repeat(left)}${line}`)
    if (label.length > width) return [`${INDENT}${label}`, `${" ".repeat(left)}${first}`, ...others]
    return [`${INDENT}${label.padEnd(width)}  ${first}`, ...others]
  })
}

function wrap(text: string, columns: number): string[] {
  const lines: string[] = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = word
    } else {
      line = line === "" ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}
