/**
 * @module mvm/control/reference-target
 *
 * Whose reference values a command is about: one VM's, or those that all VMs with a tag share.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Params } from "../../platform/json-rpc.ts"
import type { MeasurementKind } from "../../tcb/measurement/reference-table.ts"
import { isName } from "../../wire/schema.ts"
import type { Mvm } from "../context.ts"
import { optionalText, text } from "./params.ts"
import { groupScope, kindOf } from "../reference/values.ts"
import type { VmRecord } from "../state/registry.ts"

const GROUP = /^group:(.*)$/

export interface Target {
  /** As the operator calls it. */
  readonly name: string
  /** Where the values are stored. */
  readonly scope: string
  /** The VM that was named, if one was. */
  readonly record: VmRecord | undefined
  /** Whose verdict may change. */
  readonly affected: readonly VmRecord[]
  readonly kind: MeasurementKind
}

/** From `vm` (a VM, or `group:TAG`) and `group` (a tag of that VM). @throws MvmError `not_found`, `usage` */
export function targetOf(mvm: Mvm, params: Params): Target {
  const name = text(params, "vm")
  const [, tag] = GROUP.exec(name) ?? []
  if (tag !== undefined) return groupTarget(mvm, tag)
  const record = mvm.vms.require(name)
  const group = optionalText(params, "group")
  if (group === undefined) {
    return { name, scope: record.uuid, record, affected: [record], kind: kindOf(record) }
  }
  if (!record.tags.includes(group)) {
    throw new MvmError("usage", `${name} does not have the tag ${group}, so it would not share the values`, {
      hint: `mvm vm set ${name} --tag ${group}`,
    })
  }
  return { ...groupTarget(mvm, group), record, kind: kindOf(record) }
}

/** Judge every VM again whose values have changed. */
export function reconsider(mvm: Mvm, target: Target): void {
  for (const record of target.affected) mvm.verifierOf(record).reconsider()
}

function groupTarget(mvm: Mvm, tag: string): Target {
  if (!isName(tag)) throw new MvmError("usage", `group:${tag} is no tag`)
  const affected = mvm.context.registry.listVms().filter((record) => record.tags.includes(tag))
  const [first] = affected
  const kind = first ? kindOf(first) : "kernel"
  return { name: groupScope(tag), scope: groupScope(tag), record: undefined, affected, kind }
}
