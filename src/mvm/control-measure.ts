/** @module mvm/control-measure */

import { fromHex } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import type { Handler, Params } from "../platform/json-rpc.ts"
import type { SeenMeasurement } from "../tcb/measurement/replay.ts"
import { boolean, optionalText, text } from "./control-params.ts"
import type { Member } from "./member.ts"
import { decide } from "./policy/decide.ts"
import type { ReferenceEntry } from "./registry-reference.ts"
import type { VmRecord } from "./registry.ts"
import type { Mvm } from "./context.ts"

/** Always in a log, and without which it is no log of ours. */
const REQUIRED_PATHS = new Set(["boot_aggregate", "/etc/ima/policy"])

/** Programs that run what they are told, or read other processes: their digest says little. */
const OPEN_ENDED =
  /\/(ba|da|z|a|fi|c|k)?sh$|\/(python|perl|ruby|node|lua|php|tclsh|bun|deno|gdb|strace|ltrace)[0-9.]*$/

export function measureHandlers(mvm: Mvm): Record<string, Handler> {
  const { context, vms } = mvm
  const { reference } = context.registry
  return {
    "measure.learn": async (params) => {
      const record = vms.require(text(params, "vm"))
      const verifier = mvm.verifierOf(record)
      await collect(mvm, record)
      const entries = verifier.seen.map((seen) => learnt(seen, record, text(params, "reason")))
      if (boolean(params, "replace")) reference.clearReference(record.uuid)
      const added = reference.addReference(record.uuid, entries)
      await context.audit.commit("measure_learn", {
        vm: record.name,
        entries: entries.length,
        added,
        reason: text(params, "reason"),
      })
      verifier.reconsider()
      return { vm: record.name, entries: entries.length, added, warnings: warningsOf(entries) }
    },
    "measure.show": (params) => {
      const record = vms.require(text(params, "vm"))
      return reference.listReference(record.uuid).map((entry) => ({ ...entry, digest: entry.digest.toHex() }))
    },
    "measure.diff": (params) => {
      const record = vms.require(text(params, "vm"))
      return difference(mvm, record)
    },
    "measure.approve": async (params) => {
      const record = vms.require(text(params, "vm"))
      const approved = toApprove(mvm, record, params)
      const reason = text(params, "reason")
      approve(mvm, record, approved, reason)
      await context.audit.commit("measure_approve", {
        vm: record.name,
        reason,
        approved: approved.map(({ path, digest }) => `${digest} ${path}`),
      })
      mvm.verifierOf(record).reconsider()
      return { approved }
    },
    "measure.explain": (params) => {
      const record = vms.require(text(params, "vm"))
      const { verdict, code, message, checks, entries, sinceMs } = mvm.verifierOf(record).opinion
      const failedFirst = [...checks].sort((a, b) => Number(a.ok) - Number(b.ok))
      return {
        vm: record.name,
        verdict,
        code: code ?? null,
        message: message ?? null,
        since: new Date(sinceMs).toISOString(),
        entries,
        checks: failedFirst,
      }
    },
    "measure.run": async (params) => {
      const record = vms.require(text(params, "vm"))
      await mvm.measure(memberOf(mvm, record))
    },
    "policy.test": async (params) => {
      // Who has just written the file asks about what is in it.
      await context.policy.settled()
      const tags = (name: string): readonly string[] => context.registry.getVm(name)?.tags ?? []
      const [from, to] = [text(params, "from"), text(params, "to")]
      const program = optionalText(params, "program")
      const decision = decide(context.policy.current, {
        service: text(params, "service"),
        from: { name: from, tags: tags(from) },
        to: { name: to, tags: tags(to) },
        program: program === undefined ? undefined : { path: program, digest: "" },
      })
      const { action, rule, target, reason } = decision
      return { action, rule: rule.label, target, reason: reason ?? "" }
    },
  }
}

interface Approval {
  /** A path, or `pcr:N` */
  readonly path: string
  readonly digest: string
}

/** @throws MvmError `usage` or `not_found` when there is nothing to approve. */
function toApprove(mvm: Mvm, record: VmRecord, params: Params): Approval[] {
  const path = optionalText(params, "path")
  const digest = optionalText(params, "digest")
  if (path === undefined && !boolean(params, "all")) {
    throw new MvmError("usage", "say which path, or --all", { hint: `mvm measure diff ${record.name}` })
  }
  if (digest !== undefined) {
    if (path === undefined || !/^[0-9a-f]{64}$/.test(digest)) {
      throw new MvmError("usage", "--digest needs a path and 64 hexadecimal digits")
    }
    return [{ path, digest }]
  }
  const seen = difference(mvm, record).seen.filter((entry) => path === undefined || entry.path === path)
  if (seen.length > 0) return seen
  throw new MvmError(
    "not_found",
    `${record.name} was not seen to run ${path ?? "anything"} that is not allowed`,
  )
}

function approve(mvm: Mvm, record: VmRecord, approved: readonly Approval[], reason: string): void {
  const { reference } = mvm.context.registry
  const addedMs = Date.now()
  const values = { source: "approve", reason, addedMs }
  for (const { path, digest } of approved) {
    const pcr = /^pcr:(\d+)$/.exec(path)
    if (pcr) {
      const index = Number(pcr[1])
      const before = reference.listPcrs(record.uuid).filter((value) => value.index === index)
      reference.setPcr(record.uuid, index, [...before, { ...values, digest: fromHex(digest) }])
    } else {
      reference.addReference(record.uuid, [{ ...values, path, digest: fromHex(digest), required: false }])
    }
  }
}

/** The present boot's log up to now. Being untrusted, or having no values yet, is what learning is for. */
async function collect(mvm: Mvm, record: VmRecord): Promise<void> {
  const verifier = mvm.verifierOf(record)
  try {
    await mvm.measure(memberOf(mvm, record))
  } catch (error) {
    const expected =
      error instanceof MvmError && (error.code === "no_reference" || error.code === "untrusted")
    if (!expected || !verifier.quote) throw error
  }
}

function memberOf(mvm: Mvm, record: VmRecord): Member {
  const member = mvm.context.hub.byUuid(record.uuid)
  if (member?.session) return member
  throw new MvmError("no_agent", `${record.name} has no agent connected`, {
    hint:
      record.kind === "local"
        ? `mvm guest agent --local ${record.name}`
        : `mvm vm start ${record.name} --wait`,
  })
}

function learnt(seen: SeenMeasurement, record: VmRecord, reason: string): ReferenceEntry {
  const isAgent = record.kind !== "local" && /\/mvm$/.test(seen.path)
  return {
    path: seen.path,
    digest: fromHex(seen.fileDigest.hex),
    source: "learn",
    reason,
    required: REQUIRED_PATHS.has(seen.path) || isAgent,
    addedMs: Date.now(),
  }
}

function warningsOf(entries: readonly ReferenceEntry[]): string[] {
  return entries
    .filter((entry) => OPEN_ENDED.test(entry.path))
    .map((entry) => `${entry.path} runs whatever it is told: its digest says little about what it did`)
}

function difference(
  mvm: Mvm,
  record: VmRecord,
): Record<"seen" | "unseen", { path: string; digest: string }[]> {
  const key = (path: string, digest: string): string => `${digest} ${path}`
  const allowed = mvm.context.registry.reference.listReference(record.uuid)
  const allowedKeys = new Set(allowed.map((entry) => key(entry.path, entry.digest.toHex())))
  const seen = mvm.verifierOf(record).seen
  const seenKeys = new Set(seen.map((entry) => key(entry.path, entry.fileDigest.hex)))
  return {
    seen: seen
      .filter((entry) => !allowedKeys.has(key(entry.path, entry.fileDigest.hex)))
      .map((entry) => ({ path: entry.path, digest: entry.fileDigest.hex })),
    unseen: allowed
      .filter((entry) => !seenKeys.has(key(entry.path, entry.digest.toHex())))
      .map((entry) => ({ path: entry.path, digest: entry.digest.toHex() })),
  }
}
