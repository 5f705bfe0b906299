/**
 * @module mvm/reference/file
 *
 * Reference values as text, for import and export. A line is what sha256sum prints, the rest is comments to it:
 *
 *     # mvm reference 1
 *     # measurement: kernel
 *     # violations: deny
 *     # required: /etc/ima/policy
 *     # exclude: /var/lib/app/cache/**
 *     # pcr 4: 67f25973...
 *     ## anything at all
 *     bb3f7011...  /etc/ima/policy
 *
 * Paths are in the text form of tcb/measurement/measured-path. Several lines for one path allow several contents.
 * A file is taken whole or refused whole, with the line and the reason.
 */

import { MvmError } from "../../lib/errors.ts"
import { fromUtf8 } from "../../lib/bytes.ts"
import { compileGlob } from "../../tcb/measurement/glob.ts"
import { isPathText } from "../../tcb/measurement/measured-path.ts"
import { QUOTED_PCRS } from "../../tcb/measurement/quote.ts"
import type {
  MeasurementKind,
  ReferenceTable,
  ViolationPolicy,
} from "../../tcb/measurement/reference-table.ts"

const FIRST_LINE = "# mvm reference 1"

// Implementation limits.
const MAX_FILE_BYTES = 64 * 1024 * 1024
const MAX_LINES = 500_000
const MAX_EXCLUDES = 256

const HEX_DIGEST = /^[0-9a-f]{64}$/

/** What has been read so far. */
interface Draft {
  files: Map<string, Set<string>>
  required: Set<string>
  pcrs: Map<number, Set<string>>
  exclude: string[]
  measurementKind: MeasurementKind | undefined
  violations: ViolationPolicy | undefined
}

/** The file's text, in one order whatever the table's. The result ends with a line feed. */
export function formatReference(table: ReferenceTable): string {
  const lines = [FIRST_LINE, `# measurement: ${table.measurementKind}`, `# violations: ${table.violations}`]
  for (const path of [...table.required].toSorted()) lines.push(`# required: ${path}`)
  for (const glob of table.exclude.toSorted()) lines.push(`# exclude: ${glob}`)
  for (const [index, values] of [...table.pcrs].toSorted(([a], [b]) => a - b)) {
    for (const hex of [...values].toSorted()) lines.push(`# pcr ${index}: ${hex}`)
  }
  for (const [path, digests] of [...table.files].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    for (const hex of [...digests].toSorted()) lines.push(`${hex}  ${path}`)
  }
  return `${lines.join("\n")}\n`
}

/**
 * Reads what {@link formatReference} wrote, or a person.
 *
 * @throws MvmError `config` with the line and the reason.
 */
export function parseReference(bytes: Uint8Array): ReferenceTable {
  const draft: Draft = {
    files: new Map(),
    required: new Set(),
    pcrs: new Map(),
    exclude: [],
    measurementKind: undefined,
    violations: undefined,
  }
  const lines = referenceLines(bytes)
  if (lines[0] !== FIRST_LINE) throw badLine(1, `${JSON.stringify(FIRST_LINE)} expected`)
  for (const [index, line] of lines.entries()) {
    if (index > 0 && line !== "" && !line.startsWith("##")) readLine(line, index + 1, draft)
  }
  const { measurementKind, violations = "deny", files, required, pcrs, exclude } = draft
  if (measurementKind === undefined) throw badLine(1, "no line `# measurement: kernel` or `agent`")
  for (const path of required) {
    if (!files.has(path))
      throw new MvmError("config", `reference file: ${path} is required and has no digest`)
  }
  return { files, required, pcrs, exclude, measurementKind, violations }
}

/** Lines without their line feeds. @throws MvmError `config` for a file too large or not UTF-8. */
export function referenceLines(bytes: Uint8Array): string[] {
  if (bytes.length > MAX_FILE_BYTES) {
    throw new MvmError("config", `reference file: ${bytes.length} bytes, at most ${MAX_FILE_BYTES}`)
  }
  let text: string
  try {
    text = fromUtf8(bytes)
  } catch (cause) {
    throw new MvmError("config", "reference file: not utf-8", { cause })
  }
  const lines = text.split("\n")
  if (lines.at(-1) === "") lines.pop()
  if (lines.length > MAX_LINES) throw new MvmError("config", `reference file: more than ${MAX_LINES} lines`)
  return lines
}

export function badLine(number: number, problem: string): MvmError {
  return new MvmError("config", `reference file line ${number}: ${problem}`, {
    hint: "nothing was imported, the values in force stay in force",
  })
}

function readLine(line: string, number: number, draft: Draft): void {
  if (!line.startsWith("#")) return readFile(line, number, draft)
  const match = /^# ([a-z]+)(?: (\d{1,2}))?: (.+)$/.exec(line)
  if (match === null) throw badLine(number, "neither `# key: value`, `## comment` nor `digest  path`")
  const [, key, index, value = ""] = match
  if ((key === "pcr") !== (index !== undefined))
    throw badLine(number, `key ${JSON.stringify(key)}: misplaced number`)
  switch (key) {
    case "measurement":
      if (value !== "kernel" && value !== "agent")
        throw badLine(number, "measurement: kernel or agent expected")
      if (draft.measurementKind !== undefined) throw badLine(number, "measurement: given twice")
      draft.measurementKind = value
      return
    case "violations":
      if (value !== "deny" && value !== "warn") throw badLine(number, "violations: deny or warn expected")
      if (draft.violations !== undefined) throw badLine(number, "violations: given twice")
      draft.violations = value
      return
    case "required":
      if (!isFilePath(value)) throw badLine(number, "required: not a path in text form")
      if (draft.required.has(value)) throw badLine(number, "required: given twice")
      draft.required.add(value)
      return
    case "exclude":
      return readExclude(value, number, draft)
    case "pcr":
      return readPcr(Number(index), value, number, draft)
    default:
      throw badLine(number, `unknown key ${JSON.stringify(key)}`)
  }
}

function readFile(line: string, number: number, { files }: Draft): void {
  const digest = line.slice(0, 64)
  const path = line.slice(66)
  if (!HEX_DIGEST.test(digest)) throw badLine(number, "digest: 64 lower-case hex digits expected")
  if (line.slice(64, 66) !== "  ") throw badLine(number, "digest: two spaces expected behind it")
  if (!isFilePath(path))
    throw badLine(number, "path: not in text form (a space is written `_`, a backslash `\\x5c`)")
  insert(files, path, digest, number)
}

function readExclude(glob: string, number: number, { exclude }: Draft): void {
  if (exclude.length >= MAX_EXCLUDES) throw badLine(number, `exclude: more than ${MAX_EXCLUDES}`)
  if (exclude.includes(glob)) throw badLine(number, "exclude: given twice")
  try {
    compileGlob(glob)
  } catch (error) {
    throw badLine(number, `exclude: ${error instanceof Error ? error.message : "bad glob"}`)
  }
  if (!isFilePath(glob)) throw badLine(number, "exclude: not a path in text form")
  exclude.push(glob)
}

function readPcr(index: number, value: string, number: number, { pcrs }: Draft): void {
  // PCR 10 is the log itself; no value of it can be a reference.
  if (index >= QUOTED_PCRS.length - 1) throw badLine(number, `pcr: 0 to ${QUOTED_PCRS.length - 2} expected`)
  if (!HEX_DIGEST.test(value)) throw badLine(number, "pcr: 64 lower-case hex digits expected")
  insert(pcrs, index, value, number)
}

function insert<K>(map: Map<K, Set<string>>, key: K, hex: string, number: number): void {
  const set = map.get(key)
  if (set === undefined) map.set(key, new Set([hex]))
  else if (set.has(hex)) throw badLine(number, "the same value twice")
  else set.add(hex)
}

/** IMA writes no space, so a path with one would never match. */
function isFilePath(path: string): boolean {
  return isPathText(path) && !path.includes(" ")
}
