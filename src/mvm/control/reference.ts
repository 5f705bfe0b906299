/**
 * @module mvm/control/reference
 *
 * Reference values as the operator manages them. Every change is a row in the audit log, and every VM it concerns is
 * judged again at once.
 */

import { fromHex, toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import type { Handler, Params } from "../../platform/json-rpc.ts"
import { BOOT_AGGREGATE_PCRS } from "../../tcb/measurement/quote.ts"
import {
  IMA_POLICY_PATHS,
  learnReference,
  type ReferenceTable,
} from "../../tcb/measurement/reference-table.ts"
import { toApprove, approve, differences, PCR_SUBJECT } from "./approval.ts"
import { boolean, optionalText, text, texts } from "./params.ts"
import { isAgent, seenOf } from "../measured-member.ts"
import { formatReference } from "../reference/file.ts"
import { IMPORT_FORMATS, readImport } from "./reference-import.ts"
import { reconsider, targetOf, type Target } from "./reference-target.ts"
import { scopesOf, storedTable } from "../reference/values.ts"
import type { ReferenceEntry } from "../state/registry-reference.ts"
import type { Mvm } from "../context.ts"

/** What every boot of a VM must have measured, where it was measured in the boot that is learnt. */
const REQUIRED_PATHS: ReadonlySet<string> = new Set(IMA_POLICY_PATHS)

/** Firmware's settings and boot variables (1 and 5) change between good boots; these do not. */
const LEARNT_PCRS: readonly number[] = [0, 2, 3, 4, 6, 7, 8, 9]

export function referenceHandlers(mvm: Mvm): Record<string, Handler> {
  const { context } = mvm
  const { reference } = context.registry
  const commit = (kind: string, target: Target, facts: Record<string, unknown>): Promise<void> =>
    context.audit.commit(kind, { vm: target.record?.name ?? target.name, scope: target.name, ...facts })
  return {
    "measure.learn": async (params) => {
      const target = targetOf(mvm, params)
      const reason = text(params, "reason")
      const { table, warnings } = await learn(mvm, target, params)
      const added = store(mvm, target, table, {
        source: "learn",
        reason,
        replace: boolean(params, "replace"),
      })
      const entries = countOf(table)
      await commit("measure_learn", target, { entries, added, reason })
      reconsider(mvm, target)
      return { vm: target.name, entries, added, warnings }
    },
    "measure.import": async (params) => {
      const target = targetOf(mvm, params)
      const reason = text(params, "reason")
      const format = IMPORT_FORMATS.find((known) => known === text(params, "format"))
      if (format === undefined) throw new MvmError("usage", `format is none of ${IMPORT_FORMATS.join(", ")}`)
      const signature = optionalText(params, "signature")
      const { table, signedBy } = readImport(mvm.stateDir.path, {
        format,
        content: Uint8Array.fromBase64(text(params, "content")),
        signature: signature === undefined ? undefined : Uint8Array.fromBase64(signature),
        keys: texts(params, "keys"),
        kind: target.kind,
      })
      const replace = boolean(params, "replace")
      const added = store(mvm, target, table, { source: "import", reason, replace })
      const entries = countOf(table)
      await commit("measure_import", target, { format, entries, added, replace, signedBy, reason })
      reconsider(mvm, target)
      return { vm: target.name, entries, added, signedBy: signedBy ?? null }
    },
    "measure.show": (params) => {
      const { scope } = targetOf(mvm, params)
      const added = (addedMs: number): string => new Date(addedMs).toISOString()
      return [
        ...reference.listPcrs(scope).map(({ index, digest, addedMs, ...rest }) => ({
          path: `pcr:${index}`,
          digest: toHex(digest),
          required: true,
          ...rest,
          added: added(addedMs),
        })),
        ...reference.listReference(scope).map(({ digest, addedMs, ...rest }) => {
          return { ...rest, digest: toHex(digest), added: added(addedMs) }
        }),
        ...reference.listExcludes(scope).map(({ glob, reason, addedMs }) => {
          return { path: glob, digest: "", required: false, source: "exclude", reason, added: added(addedMs) }
        }),
      ]
    },
    "measure.export": (params) => {
      const target = targetOf(mvm, params)
      const shared = params["group"] !== undefined || target.record === undefined
      const scopes = shared || !target.record ? [target.scope] : scopesOf(target.record)
      const table = storedTable(reference, scopes, target.kind)
      const violations = target.record?.config.violations ?? "deny"
      return { text: formatReference({ ...table, violations }) }
    },
    "measure.diff": (params) => differences(mvm, mvm.vms.require(text(params, "vm"))),
    "measure.approve": async (params) => {
      const target = targetOf(mvm, params)
      if (!target.record) throw new MvmError("usage", "approve needs a VM", { hint: "with --group TAG" })
      const reason = text(params, "reason")
      const { approved, skipped } = toApprove(mvm, target.record, params)
      approve(mvm, target, approved, { reason, required: boolean(params, "required") })
      await commit("measure_approve", target, { reason, ...listed("approved", approved) })
      reconsider(mvm, target)
      return { approved, skipped }
    },
    "measure.remove": async (params) => {
      const target = targetOf(mvm, params)
      const removed = remove(mvm, target, params)
      await commit("measure_remove", target, {
        path: optionalText(params, "path") ?? "all",
        digest: optionalText(params, "digest") ?? null,
        removed,
        reason: text(params, "reason"),
      })
      reconsider(mvm, target)
      return { removed }
    },
    "measure.exclude": async (params) => {
      const target = targetOf(mvm, params)
      const [glob, reason] = [text(params, "glob"), text(params, "reason")]
      const off = boolean(params, "remove")
      if (!off) reference.addExclude(target.scope, { glob, reason, addedMs: Date.now() })
      else if (!reference.removeExclude(target.scope, glob)) {
        throw new MvmError("not_found", `${target.name} does not exclude ${glob}`)
      }
      await commit("measure_exclude", target, { glob, removed: off, reason })
      reconsider(mvm, target)
      return { vm: target.name, glob, removed: off }
    },
  }
}

/** The present boot of the named VM as reference values. */
async function learn(
  mvm: Mvm,
  { record }: Target,
  params: Params,
): Promise<{ table: ReferenceTable; warnings: string[] }> {
  if (!record) throw new MvmError("usage", "learn needs a VM", { hint: "with --group TAG" })
  const { measured, quote } = await seenOf(mvm, record)
  const required = measured
    .filter(({ path, violation, fileDigest }) => {
      return (
        !violation && fileDigest.algorithm === "sha256" && (REQUIRED_PATHS.has(path) || isAgent(record, path))
      )
    })
    .map(({ path }) => path)
  const pcrs = new Map(
    pcrsToLearn(params, record.kind === "local").map((index) => [index, quote.pcrs[index]!]),
  )
  return learnReference(measured, {
    measurementKind: record.kind === "local" ? "agent" : "kernel",
    required,
    pcrs,
  })
}

function pcrsToLearn(params: Params, isLocal: boolean): readonly number[] {
  const wanted = params["pcrs"]
  if (wanted === undefined || wanted === null) return isLocal ? [] : LEARNT_PCRS
  if (Array.isArray(wanted) && wanted.every((index) => BOOT_AGGREGATE_PCRS.includes(index as number))) {
    return wanted as number[]
  }
  throw new MvmError("usage", "pcrs: 0 to 9 expected")
}

interface Origin {
  readonly source: string
  readonly reason: string
  readonly replace: boolean
}

/** All of `table` or nothing. @returns how many values are new */
function store(mvm: Mvm, { scope }: Target, table: ReferenceTable, origin: Origin): number {
  const { registry } = mvm.context
  const { reference } = registry
  const values = { source: origin.source, reason: origin.reason, addedMs: Date.now() }
  return registry.database.transaction(() => {
    if (origin.replace) reference.clearReference(scope)
    // What must be there stays so: learning or importing again never drops a demand unasked.
    const demanded = new Set(
      reference
        .listReference(scope)
        .filter((e) => e.required)
        .map((e) => e.path),
    )
    const entries: ReferenceEntry[] = []
    for (const [path, digests] of table.files) {
      const required = table.required.has(path) || demanded.has(path)
      for (const hex of digests) entries.push({ ...values, path, digest: fromHex(hex), required })
    }
    let added = reference.addReference(scope, entries)
    for (const [index, allowed] of table.pcrs) {
      const before = reference.listPcrs(scope).filter((value) => value.index === index)
      const known = new Set(before.map((value) => toHex(value.digest)))
      const fresh = [...allowed].filter((hex) => !known.has(hex))
      added += fresh.length
      reference.setPcr(scope, index, [
        ...before,
        ...fresh.map((hex) => ({ ...values, digest: fromHex(hex) })),
      ])
    }
    for (const glob of table.exclude) reference.addExclude(scope, { ...values, glob })
    return added
  })
}

/** @returns how many values are gone */
function remove(mvm: Mvm, { scope, name }: Target, params: Params): number {
  const { reference } = mvm.context.registry
  const path = optionalText(params, "path")
  const hex = optionalText(params, "digest")
  if (path === undefined) {
    if (boolean(params, "all")) return reference.clearReference(scope)
    throw new MvmError("usage", "say which path, or --all", { hint: `mvm measure show ${name}` })
  }
  if (hex !== undefined && !/^[0-9a-f]{64}$/.test(hex)) {
    throw new MvmError("usage", "--digest needs 64 hexadecimal digits")
  }
  const pcr = PCR_SUBJECT.exec(path)
  const removed = pcr
    ? removePcr(mvm, scope, Number(pcr[1]), hex)
    : reference.removeReference(scope, path, hex === undefined ? undefined : fromHex(hex))
  if (removed > 0) return removed
  throw new MvmError("not_found", `${name} has no reference value ${path}`, {
    hint: `mvm measure show ${name}`,
  })
}

function removePcr(mvm: Mvm, scope: string, index: number, hex: string | undefined): number {
  const { reference } = mvm.context.registry
  if (hex === undefined) return reference.removePcr(scope, index)
  const before = reference.listPcrs(scope).filter((value) => value.index === index)
  const kept = before.filter((value) => toHex(value.digest) !== hex)
  reference.setPcr(scope, index, kept)
  return before.length - kept.length
}

function countOf(table: ReferenceTable): number {
  let count = 0
  for (const digests of table.files.values()) count += digests.size
  for (const values of table.pcrs.values()) count += values.size
  return count
}

/** Rows of the audit log are bounded: a long list is cut, its length kept. */
function listed(name: string, values: readonly { path: string; digest: string }[]): Record<string, unknown> {
  const shown: string[] = []
  let characters = 0
  for (const { path, digest } of values) {
    characters += path.length + digest.length + 8
    if (characters > 30_000) break
    shown.push(`${digest} ${path}`)
  }
  return { [name]: shown, [`${name}Count`]: values.length }
}
