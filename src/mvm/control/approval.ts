/**
 * @module mvm/control/approval
 *
 * What a VM was seen to run against what it may run, and the operator's word that it may.
 */

import { fromHex, toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import type { Params } from "../../platform/json-rpc.ts"
import { isLaunchPath, launchMeasured } from "../../tcb/measurement/launch.ts"
import { isPathText } from "../../tcb/measurement/measured-path.ts"
import { BOOT_AGGREGATE_PCRS } from "../../tcb/measurement/quote.ts"
import { diffReference, emptyReference } from "../../tcb/measurement/reference-table.ts"
import type { Mvm } from "../context.ts"
import { boolean, optionalText } from "./params.ts"
import type { Target } from "./reference-target.ts"
import { kindOf, scopesOf, storedTable } from "../reference/values.ts"
import type { VmRecord } from "../state/registry.ts"

/** A PCR as `approve`, `remove` and `show` name it. */
export const PCR_SUBJECT = /^pcr:(\d+)$/

const HEX_DIGEST = /^[0-9a-f]{64}$/

export interface Approval {
  /** A path, or `pcr:N` */
  readonly path: string
  /** Lower-case hex SHA-256 */
  readonly digest: string
}

export interface Differences {
  /** Ran, and is not allowed. */
  readonly seen: readonly Approval[]
  /** Ran, and cannot be allowed by its digest: another algorithm. */
  readonly other: readonly { path: string; digest: string }[]
  /** Open for writing while it was measured. */
  readonly violations: readonly string[]
  /** Required, and not measured. */
  readonly missing: readonly string[]
  /** Allowed, and not seen in this boot. */
  readonly unseen: readonly Approval[]
}

/** The present boot of `record` against all values that count for it. */
export function differences(mvm: Mvm, record: VmRecord): Differences {
  const { reference } = mvm.context.registry
  const kind = kindOf(record)
  const table = storedTable(reference, scopesOf(record), kind)
  const { measured, quote } = mvm.verifierOf(record)
  const diff = diffReference(table ?? emptyReference(kind), measured)
  // How the VM was started is judged where the table names it, and only there.
  const sha256 = diff.notAllowed.filter(({ path, seen, allowed }) => {
    return seen.algorithm === "sha256" && (allowed.length > 0 || !isLaunchPath(path))
  })
  const pcrs = [...table.pcrs]
    .map(([index, allowed]) => ({ index, allowed, value: quote?.pcrs[index] }))
    .filter(({ allowed, value }) => value !== undefined && !allowed.has(toHex(value)))
  return {
    seen: [
      ...pcrs.map(({ index, value }) => ({ path: `pcr:${index}`, digest: toHex(value!) })),
      ...sha256.map(({ path, seen }) => ({ path, digest: seen.hex })),
    ],
    other: diff.notAllowed
      .filter(({ seen }) => seen.algorithm !== "sha256")
      .map(({ path, seen }) => ({ path, digest: `${seen.algorithm}:${seen.hex}` })),
    violations: diff.violations,
    missing: diff.missing,
    unseen: diff.unused,
  }
}

/** @throws MvmError `usage` or `not_found` when there is nothing to approve. */
export function toApprove(
  mvm: Mvm,
  record: VmRecord,
  params: Params,
): { approved: readonly Approval[]; skipped: readonly string[] } {
  const path = optionalText(params, "path")
  const digest = optionalText(params, "digest")
  if (path === undefined && !boolean(params, "all")) {
    throw new MvmError("usage", "say which path, or --all", { hint: `mvm measure diff ${record.name}` })
  }
  if (digest !== undefined) {
    if (path === undefined || !HEX_DIGEST.test(digest)) {
      throw new MvmError("usage", "--digest needs a path and 64 hexadecimal digits")
    }
    return { approved: [{ path: checkedPath(path), digest }], skipped: [] }
  }
  const present = path === undefined ? undefined : presentValue(mvm, record, path)
  if (present) return { approved: [present], skipped: [] }
  const diff = differences(mvm, record)
  const approved = diff.seen.filter((entry) => path === undefined || entry.path === path)
  const skipped = path === undefined ? [...diff.other.map((entry) => entry.path), ...diff.violations] : []
  if (approved.length > 0) return { approved, skipped }
  const other = diff.other.find((entry) => entry.path === path)
  if (other) throw new MvmError("config", `${other.path} was measured as ${other.digest}, not with sha256`)
  throw new MvmError(
    "not_found",
    `${record.name} was not seen to run ${path ?? "anything"} that is not allowed`,
  )
}

/** What a PCR, or a part of the start, is in this boot: no file, so there only when it is asked for by name. */
function presentValue(mvm: Mvm, record: VmRecord, path: string): Approval | undefined {
  const { quote, launch } = mvm.verifierOf(record)
  const pcr = PCR_SUBJECT.exec(path)
  if (pcr) {
    const value = quote?.pcrs[Number(pcr[1])]
    return value && { path: checkedPath(path), digest: toHex(value) }
  }
  if (!launch || !isLaunchPath(path)) return undefined
  const part = launchMeasured(launch).find((measured) => measured.path === path)
  return part && { path, digest: part.fileDigest.hex }
}

/** Adds to what is allowed; what was allowed before stays so. */
export function approve(
  mvm: Mvm,
  { scope }: Target,
  approved: readonly Approval[],
  { reason, required }: { reason: string; required: boolean },
): void {
  const { registry } = mvm.context
  const { reference } = registry
  const values = { source: "approve", reason, addedMs: Date.now() }
  registry.database.transaction(() => {
    const demanded = new Set(
      reference
        .listReference(scope)
        .filter((e) => e.required)
        .map((e) => e.path),
    )
    for (const { path, digest } of approved) {
      const pcr = PCR_SUBJECT.exec(path)
      if (!pcr) {
        const entry = { ...values, path, digest: fromHex(digest), required: required || demanded.has(path) }
        reference.addReference(scope, [entry])
        continue
      }
      const index = Number(pcr[1])
      const before = reference.listPcrs(scope).filter((value) => value.index === index)
      if (before.some((value) => toHex(value.digest) === digest)) continue
      reference.setPcr(scope, index, [...before, { ...values, digest: fromHex(digest) }])
    }
  })
}

/** A path that a log can hold, or a PCR that is quoted; anything else would never match. */
function checkedPath(path: string): string {
  const pcr = PCR_SUBJECT.exec(path)
  if (pcr && !BOOT_AGGREGATE_PCRS.includes(Number(pcr[1]))) {
    throw new MvmError("usage", `${path}: pcr:0 to pcr:${BOOT_AGGREGATE_PCRS.length - 1} can be approved`)
  }
  if (isPathText(path) && !path.includes(" ")) return path
  throw new MvmError("usage", `${path} is no path of a log`, {
    hint: "a space is written _, other unusual characters \\xHH, as mvm measure diff shows them",
  })
}
