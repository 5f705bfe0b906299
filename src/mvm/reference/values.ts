/**
 * @module mvm/reference/values
 *
 * The reference table of one VM, put together from the registry: its own values and those of the groups that its
 * tags name. In any of them, several values for one path or PCR are all allowed, so that old and new go together
 * during an upgrade.
 */

import type { ReferenceValues } from "../../tcb/measurement/appraise.ts"
import {
  emptyReference,
  type MeasurementKind,
  type ReferenceTable,
} from "../../tcb/measurement/reference-table.ts"
import type { ReferenceTable as StoredReference } from "../state/registry-reference.ts"
import type { VmRecord } from "../state/registry.ts"

const GROUP = "group:"

/** The scope of the values that all VMs with `tag` share. */
export function groupScope(tag: string): string {
  return `${GROUP}${tag}`
}

/** Scopes whose values count for `record`, its own first. */
export function scopesOf(record: VmRecord): string[] {
  return [record.uuid, ...record.tags.map(groupScope)]
}

/** Who keeps the log of `record`. */
export function kindOf(record: Pick<VmRecord, "kind">): MeasurementKind {
  return record.kind === "local" ? "agent" : "kernel"
}

/** What `record` is held against now; no table at all when no scope has any value. */
export function referenceValues(
  stored: StoredReference,
  record: VmRecord,
  kind: MeasurementKind,
): ReferenceValues {
  const table = storedTable(stored, scopesOf(record), kindOf(record))
  const { violations = "deny" } = record.config
  return { table: table.files.size === 0 ? undefined : { ...table, violations }, vm: record.name, kind }
}

/** All values of `scopes` together. */
export function storedTable(
  stored: StoredReference,
  scopes: readonly string[],
  measurementKind: MeasurementKind,
): ReferenceTable {
  const files = new Map<string, Set<string>>()
  const required = new Set<string>()
  const pcrs = new Map<number, Set<string>>()
  const exclude = new Set<string>()
  for (const scope of scopes) {
    for (const entry of stored.listReference(scope)) {
      addTo(files, entry.path, entry.digest.toHex())
      if (entry.required) required.add(entry.path)
    }
    for (const pcr of stored.listPcrs(scope)) addTo(pcrs, pcr.index, pcr.digest.toHex())
    for (const { glob } of stored.listExcludes(scope)) exclude.add(glob)
  }
  return { ...emptyReference(measurementKind), files, required, pcrs, exclude: [...exclude] }
}

function addTo<K>(map: Map<K, Set<string>>, key: K, value: string): void {
  const set = map.get(key)
  if (set) set.add(value)
  else map.set(key, new Set([value]))
}
