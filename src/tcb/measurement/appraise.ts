/**
 * @module tcb/measurement/appraise
 *
 * From verified evidence to a verdict: every check with what was expected and what was seen, the first failing one
 * on top. Work is proportional to the entries that are new; a boot's appraiser lives as long as the boot and the
 * table do. That untrusted stays untrusted until a reset or an approval is the caller's rule, and holds here as far
 * as a boot goes: a failed entry is never forgotten.
 *
 * @spec RFC 9334 §8.1 (appraisal of evidence); Linux Documentation/ABI/testing/ima_policy
 */

import { toHex } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { shellWord } from "../../lib/shell.ts"
import { approveCommand, errorCheck, type Check } from "./check.ts"
import type { FirmwareEvent } from "./event-log.ts"
import { compileGlobs, type PathMatcher } from "./glob.ts"
import { launchChecks, predictionChecks, type Launch } from "./launch.ts"
import { BOOT_AGGREGATE_PCRS, type VerifiedQuote } from "./quote.ts"
import {
  BOOT_AGGREGATE,
  isAllowed,
  type Measured,
  type MeasurementKind,
  type ReferenceTable,
} from "./reference-table.ts"

/** Failed entries kept in full; the rest is counted. */
const MAX_FAILED_ENTRIES = 500

const NO_AGGREGATE = "no boot_aggregate"

export type Verdict = "trusted" | "untrusted" | "no_reference"

export interface Appraisal {
  readonly verdict: Verdict
  /** Failed errors first, in the order of the log; then failed warnings; then what held. */
  readonly checks: readonly Check[]
  /** Failed entries beyond those in `checks`. */
  readonly moreFailed: number
}

/** What a VM is held against, and who it is. */
export interface ReferenceValues {
  /** None: nothing is trusted. */
  readonly table: ReferenceTable | undefined
  /** Name of the VM, for the messages. */
  readonly vm: string
  /** Who keeps the log of this VM. */
  readonly kind: MeasurementKind
  /** How the manager started this boot, where it did. */
  readonly launch?: Launch | undefined
}

export class Appraiser {
  readonly #table: ReferenceTable | undefined
  readonly #vm: string
  readonly #kind: MeasurementKind
  readonly #launch: Launch | undefined
  /** Checks that no evidence changes. */
  readonly #launchChecks: readonly Check[]
  readonly #excluded: PathMatcher
  readonly #failed = new Map<string, Check>()
  /** Entries that were judged: what the same one says again changes nothing. */
  #judged = new WeakSet<Measured>()
  #missing: Set<string>
  #moreFailed = 0
  #fatal = false
  #entries = 0
  #aggregate: string | undefined
  /** The firmware's log of this boot, once it was found to explain the PCRs. */
  events: readonly FirmwareEvent[] | undefined

  /** With no table the verdict is always `no_reference`. */
  constructor({ table, vm, kind, launch }: ReferenceValues) {
    this.#table = table
    this.#vm = vm
    this.#kind = kind
    this.#launch = launch
    this.#launchChecks = launch && table ? launchChecks(launch, table, vm) : []
    this.#excluded = compileGlobs(table?.exclude ?? [])
    this.#missing = new Set(table?.required ?? [])
  }

  /**
   * The verdict on everything given so far and `measured`, the newly matched entries in log order, with the PCRs of
   * `quote`.
   */
  appraise(quote: VerifiedQuote, measured: Iterable<Measured> = []): Appraisal {
    for (const entry of measured) this.#add(entry)
    const table = this.#table
    if (table === undefined) return noReference(this.#vm)
    const checks = [
      this.#kindCheck(table),
      ...this.#launchChecks,
      ...this.#predictionChecks(quote),
      this.#aggregateCheck(quote),
      ...[...table.pcrs].map(([index, allowed]) => this.#pcrCheck(index, allowed, quote)),
      ...this.#eventLogCheck(),
      ...[...table.required].map((path) => this.#requiredCheck(path)),
      ...this.#failed.values(),
      this.#filesCheck(),
    ]
    const rank = (check: Check): number => (check.ok ? 2 : check.severity === "warning" ? 1 : 0)
    checks.sort((a, b) => rank(a) - rank(b))
    const trusted = !this.#fatal && checks.every((check) => check.ok || check.severity === "warning")
    return { verdict: trusted ? "trusted" : "untrusted", checks, moreFailed: this.#moreFailed }
  }

  /** Forgets what was given and starts from `measured`: all that was seen in this boot, first seen first. */
  restart(quote: VerifiedQuote, measured: Iterable<Measured>): Appraisal {
    this.#failed.clear()
    this.#judged = new WeakSet()
    this.#missing = new Set(this.#table?.required ?? [])
    this.#moreFailed = 0
    this.#fatal = false
    this.#entries = 0
    this.#aggregate = undefined
    return this.appraise(quote, measured)
  }

  #add(entry: Measured): void {
    const table = this.#table
    if (table === undefined) return
    const first = this.#entries === 0
    this.#entries += entry.count ?? 1
    if (entry.path === BOOT_AGGREGATE && !entry.violation) return this.#addAggregate(entry, first)
    if (this.#judged.has(entry)) return
    this.#judged.add(entry)
    if (entry.violation) return this.#fail(violationCheck(entry, table))
    if (isAllowed(table, entry)) {
      this.#missing.delete(entry.path)
      return
    }
    if (this.#excluded(entry.path) && !table.required.has(entry.path)) return
    // There are words for so many; one more that nobody reads is only counted.
    if (this.#fatal && this.#failed.size >= MAX_FAILED_ENTRIES) this.#moreFailed += 1
    else this.#fail(fileCheck(entry, table, this.#vm))
  }

  /** A table that names boot_aggregate itself pins PCRs 0-9 all at once. */
  #addAggregate(entry: Measured, first: boolean): void {
    if (!first || (entry.count ?? 1) !== 1) return this.#fail(secondAggregate(entry))
    this.#aggregate = `${entry.fileDigest.algorithm}:${entry.fileDigest.hex}`
    const table = this.#table!
    if (!table.files.has(BOOT_AGGREGATE) || isAllowed(table, entry)) this.#missing.delete(BOOT_AGGREGATE)
    else this.#fail(fileCheck(entry, table, this.#vm))
  }

  #fail(check: Check): void {
    if (check.severity === "error") this.#fatal = true
    const key = `${check.name} ${check.seen} ${check.subject}`
    if (this.#failed.has(key)) return
    if (this.#failed.size < MAX_FAILED_ENTRIES) this.#failed.set(key, check)
    else this.#moreFailed += 1
  }

  #kindCheck(table: ReferenceTable): Check {
    const kind = this.#kind
    const ok = kind === table.measurementKind
    const message = ok
      ? `log kept by the ${kind}`
      : `log kept by the ${kind}, the reference table is for the ${table.measurementKind}'s`
    return errorCheck({
      name: "kind",
      ok,
      subject: "measurement",
      expected: table.measurementKind,
      seen: kind,
      message,
    })
  }

  #aggregateCheck(quote: VerifiedQuote): Check {
    const expected = `sha256:${toHex(sha256(...BOOT_AGGREGATE_PCRS.map((index) => quote.pcrs[index]!)))}`
    const seen = this.#aggregate ?? NO_AGGREGATE
    const ok = seen === expected
    const message = ok
      ? "boot_aggregate is the digest of pcrs 0-9"
      : this.#aggregate === undefined
        ? "the log does not begin with boot_aggregate: measurement was off or began late"
        : "boot_aggregate is not the digest of pcrs 0-9: they were extended after the kernel started"
    return errorCheck({ name: "boot_aggregate", ok, subject: BOOT_AGGREGATE, expected, seen, message })
  }

  #predictionChecks(quote: VerifiedQuote): Check[] {
    const predicted = this.#launch?.predicted
    return predicted ? predictionChecks(predicted, quote, this.events) : []
  }

  #eventLogCheck(): Check[] {
    if (!this.events) return []
    const seen = `${this.events.length} events`
    const message = `the firmware's event log (${seen}) leads to pcrs 0-9`
    return [
      errorCheck({ name: "event_log", ok: true, subject: "event log", expected: "pcrs 0-9", seen, message }),
    ]
  }

  #pcrCheck(index: number, allowed: ReadonlySet<string>, quote: VerifiedQuote): Check {
    const value = quote.pcrs[index]
    const seen = value === undefined ? "not quoted" : toHex(value)
    const ok = allowed.has(seen)
    const subject = `pcr ${index}`
    const expected = [...allowed].join(" or ")
    const message = ok ? `${subject} holds an allowed value` : `${subject} is ${seen}, ${expected} expected`
    const check = errorCheck({ name: "pcr", ok, subject, expected, seen, message })
    return ok || value === undefined
      ? check
      : { ...check, approve: approveCommand(this.#vm, `pcr:${index}`, seen) }
  }

  #requiredCheck(path: string): Check {
    const ok = !this.#missing.has(path)
    const message = ok
      ? `${path} was measured`
      : `${path} was not measured with an allowed digest, and it must be`
    const expected = [...(this.#table?.files.get(path) ?? [])].join(" or ") || "an allowed digest"
    return errorCheck({
      name: "required",
      ok,
      subject: path,
      expected,
      seen: ok ? "measured" : "nothing allowed",
      message,
    })
  }

  #filesCheck(): Check {
    const failed = this.#failed.size + this.#moreFailed
    const seen = `${this.#entries} entries, ${failed} not allowed`
    const message = failed === 0 ? `all ${this.#entries} entries are allowed` : seen
    // What failed is listed entry by entry; this line counts.
    return {
      name: "files",
      ok: failed === 0,
      severity: "warning",
      subject: "log",
      expected: "entries of the table",
      seen,
      message,
    }
  }
}

function fileCheck(entry: Measured, table: ReferenceTable, vm: string): Check {
  const { path, fileDigest } = entry
  const { algorithm, hex } = fileDigest
  const allowed = [...(table.files.get(path) ?? [])].map((digest) => `sha256:${digest}`)
  const seen = `${algorithm}:${hex}`
  const expected = allowed.join(" or ") || "not in the table"
  const message =
    allowed.length === 0
      ? `${path} is not in the reference table (${seen})`
      : `${path} has digest ${seen}, ${expected} expected`
  const check = errorCheck({ name: "file", ok: false, subject: path, expected, seen, message })
  return algorithm === "sha256" ? { ...check, approve: approveCommand(vm, path, hex) } : check
}

function violationCheck({ path }: Measured, table: ReferenceTable): Check {
  const check = errorCheck({
    name: "violation",
    ok: false,
    subject: path,
    expected: "no change while in use",
    seen: "violation",
    message: `${path} was open for writing while it was measured, so what ran is not known`,
  })
  return table.violations === "deny" ? check : { ...check, severity: "warning" }
}

function secondAggregate(entry: Measured): Check {
  return errorCheck({
    name: "boot_aggregate",
    ok: false,
    subject: BOOT_AGGREGATE,
    expected: "once, as the first entry",
    seen: `again as ${entry.fileDigest.hex}`,
    message: "boot_aggregate is in the log other than first: a kernel was started without a reset",
  })
}

function noReference(vm: string): Appraisal {
  const message = `no reference table for ${vm}`
  const approve = `mvm measure learn ${shellWord(vm)}`
  const check = errorCheck({
    name: "files",
    ok: false,
    subject: vm,
    expected: "a reference table",
    seen: "none",
    message,
  })
  return { verdict: "no_reference", checks: [{ ...check, approve }], moreFailed: 0 }
}
