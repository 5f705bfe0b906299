/**
 * @module tcb/measurement/reference-table
 *
 * The dynamic measurement reference table: what a VM may have run. Values are (path, digest) pairs, so that an
 * allowed program under another name is not allowed. Tables are immutable; each change gives a new one.
 *
 * @spec RFC 9334 §8.3 (reference values)
 */

import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { compileGlobs } from "./glob.ts"
import type { FileDigest } from "./ima-log.ts"

/** First entry of every log, and never a file's. */
export const BOOT_AGGREGATE = "boot_aggregate"

/**
 * Where the kernel's measurement policy is in a guest: loaded by our own init, or by systemd. A boot that did not load
 * the one it has did not measure what it should.
 */
export const IMA_POLICY_PATHS = ["/etc/ima/policy", "/etc/ima/ima-policy"] as const

/** Who keeps the log. */
export type MeasurementKind = "kernel" | "agent"

/** What a violation does. Its path is not under any PCR, so it cannot be judged by path. */
export type ViolationPolicy = "deny" | "warn"

export interface ReferenceTable {
  /** Path in text form -> allowed SHA-256 digests, lower-case hex. */
  readonly files: ReadonlyMap<string, ReadonlySet<string>>
  /** Paths that must be in the log, with an allowed digest: the IMA policy, the agent. */
  readonly required: ReadonlySet<string>
  /** PCR index -> allowed values, lower-case hex. PCRs not named are not judged. */
  readonly pcrs: ReadonlyMap<number, ReadonlySet<string>>
  /** Globs of paths that are not judged (violations and required paths are all the same). */
  readonly exclude: readonly string[]
  readonly measurementKind: MeasurementKind
  readonly violations: ViolationPolicy
}

/** An entry of the log, or the summary of several alike. */
export interface Measured {
  readonly path: string
  readonly fileDigest: FileDigest
  readonly violation: boolean
  readonly count?: number
}

export interface LearnOptions {
  readonly measurementKind: MeasurementKind
  /** Paths that must be there in every later boot; each must be in the log now. */
  readonly required: Iterable<string>
  /** PCR values to hold later boots to, by index. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>
}

export function emptyReference(measurementKind: MeasurementKind): ReferenceTable {
  return {
    files: new Map(),
    required: new Set(),
    pcrs: new Map(),
    exclude: [],
    measurementKind,
    violations: "deny",
  }
}

/**
 * The table of a boot taken as good. `warnings` name what an operator should know before relying on it.
 *
 * @throws MvmError `not_found` when a required path was not measured.
 */
export function learnReference(
  seen: Iterable<Measured>,
  options: LearnOptions,
): { table: ReferenceTable; warnings: string[] } {
  const files = new Map<string, Set<string>>()
  const warnings: string[] = []
  for (const { path, fileDigest, violation } of seen) {
    if (path === BOOT_AGGREGATE) continue
    if (violation) warnings.push(`${path}: changed while it was in use, not learnt`)
    else if (fileDigest.algorithm !== "sha256")
      warnings.push(`${path}: measured with ${fileDigest.algorithm}, not learnt`)
    else addTo(files, path, fileDigest.hex)
  }
  for (const [path, digests] of files) {
    if (digests.size > 1) warnings.push(`${path}: ${digests.size} different contents in one boot`)
    const risk = riskOf(path)
    if (risk !== undefined) warnings.push(`${path}: ${risk}`)
  }
  const required = new Set(options.required)
  for (const path of required) {
    if (!files.has(path)) throw new MvmError("not_found", `learn: ${path} is required and was not measured`)
  }
  const pcrs = new Map([...options.pcrs].map(([index, value]) => [index, new Set([toHex(value)])]))
  const table = { ...emptyReference(options.measurementKind), files, required, pcrs }
  return { table, warnings }
}

/** One more digest allowed for a path; those allowed before stay, for a VM that has not been upgraded yet. */
export function allowFile(table: ReferenceTable, path: string, hex: string): ReferenceTable {
  return { ...table, files: copyWith(table.files, path, hex) }
}

/** One more value allowed for a PCR. */
export function allowPcr(table: ReferenceTable, index: number, hex: string): ReferenceTable {
  return { ...table, pcrs: copyWith(table.pcrs, index, hex) }
}

/**
 * Both tables together, for values that a group of VMs shares: either one's files are allowed, the demands of both
 * hold, and the stricter handling of violations.
 *
 * @throws MvmError `config` when the tables are for different kinds of measurement.
 */
export function mergeReferences(a: ReferenceTable, b: ReferenceTable): ReferenceTable {
  if (a.measurementKind !== b.measurementKind) {
    throw new MvmError(
      "config",
      `reference: measurement ${a.measurementKind} and ${b.measurementKind} do not mix`,
    )
  }
  const files = new Map<string, Set<string>>()
  const pcrs = new Map<number, Set<string>>()
  for (const table of [a, b]) {
    for (const [path, digests] of table.files) for (const hex of digests) addTo(files, path, hex)
    for (const [index, values] of table.pcrs) for (const hex of values) addTo(pcrs, index, hex)
  }
  return {
    files,
    pcrs,
    required: new Set([...a.required, ...b.required]),
    exclude: [...new Set([...a.exclude, ...b.exclude])],
    measurementKind: a.measurementKind,
    violations: a.violations === "deny" || b.violations === "deny" ? "deny" : "warn",
  }
}

export interface ReferenceDiff {
  /** Seen and not allowed; `allowed` is empty for a path the table does not have. */
  readonly notAllowed: readonly { path: string; seen: FileDigest; allowed: readonly string[] }[]
  readonly violations: readonly string[]
  readonly missing: readonly string[]
  /** In the table and not seen in this boot: no failure, perhaps a value to drop. */
  readonly unused: readonly { path: string; digest: string }[]
}

/** What was seen against what is allowed. */
export function diffReference(table: ReferenceTable, seen: Iterable<Measured>): ReferenceDiff {
  const excluded = compileGlobs(table.exclude)
  const notAllowed: { path: string; seen: FileDigest; allowed: string[] }[] = []
  const violations: string[] = []
  const used = new Map<string, Set<string>>()
  for (const { path, fileDigest, violation } of seen) {
    if (path === BOOT_AGGREGATE) continue
    if (violation) violations.push(path)
    else if (isAllowed(table, { path, fileDigest })) addTo(used, path, fileDigest.hex)
    else if (table.required.has(path) || !excluded(path)) {
      notAllowed.push({ path, seen: fileDigest, allowed: [...(table.files.get(path) ?? [])] })
    }
  }
  const unused: { path: string; digest: string }[] = []
  for (const [path, digests] of table.files) {
    for (const digest of digests) if (!used.get(path)?.has(digest)) unused.push({ path, digest })
  }
  const missing = [...table.required].filter((path) => !used.has(path))
  return { notAllowed, violations, missing, unused }
}

/** Whether exactly this content under exactly this path is in the table. */
export function isAllowed(table: ReferenceTable, measured: Pick<Measured, "path" | "fileDigest">): boolean {
  const { algorithm, hex } = measured.fileDigest
  return algorithm === "sha256" && table.files.get(measured.path)?.has(hex) === true
}

const INTERPRETERS =
  /^(?:(?:ba|da|z|k|c|tc|fi|a)?sh|busybox|(?:python|perl|ruby|lua|php|tclsh)[\d.]*|node|nodejs|deno|bun|awk|gawk|mawk)$/
const DEBUGGERS = /^(?:gdb|gdbserver|lldb|strace|ltrace|bpftrace|perf|gcore|criu|kexec)$/

/** Why a program in the table weakens it: it runs what is not measured, or reads other processes. */
function riskOf(path: string): string | undefined {
  const name = path.slice(path.lastIndexOf("/") + 1)
  if (INTERPRETERS.test(name)) return "an interpreter, what it runs as data is not measured"
  if (DEBUGGERS.test(name)) return "a debugger, it can read and change measured programs"
  return undefined
}

function addTo<K>(map: Map<K, Set<string>>, key: K, hex: string): void {
  const set = map.get(key)
  if (set === undefined) map.set(key, new Set([hex]))
  else set.add(hex)
}

function copyWith<K>(
  map: ReadonlyMap<K, ReadonlySet<string>>,
  key: K,
  hex: string,
): Map<K, ReadonlySet<string>> {
  return new Map(map).set(key, new Set([...(map.get(key) ?? []), hex]))
}
