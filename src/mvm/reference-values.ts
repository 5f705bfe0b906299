/**
 * @module mvm/reference-values
 *
 * The reference table of one VM, put together from the registry: its own values and those of the groups that its
 * tags name.
 */

import type { ReferenceValues } from "../tcb/measurement/appraise.ts"
import type { ReferenceTable } from "../tcb/measurement/reference-table.ts"
import type { ReferenceTable as StoredReference } from "./registry-reference.ts"
import type { VmRecord } from "./registry.ts"

/** Scopes whose values count for `record`, its own first. */
export function scopesOf(record: VmRecord): string[] {
  return [record.uuid, ...record.tags.map((tag) => `group:${tag}`)]
}

/** What `record` is held against now; no table at all when no scope has any value. */
export function referenceValues(
  stored: StoredReference,
  record: VmRecord,
  kind: "kernel" | "agent",
): ReferenceValues {
  const files = new Map<string, Set<string>>()
  const required = new Set<string>()
  const pcrs = new Map<number, Set<string>>()
  for (const scope of scopesOf(record)) {
    for (const entry of stored.listReference(scope)) {
      addTo(files, entry.path, entry.digest.toHex())
      if (entry.required) required.add(entry.path)
    }
    for (const pcr of stored.listPcrs(scope)) addTo(pcrs, pcr.index, pcr.digest.toHex())
  }
  const table: ReferenceTable | undefined =
    files.size === 0
      ? undefined
      : {
          files,
          required,
          pcrs,
          exclude: [],
          measurementKind: record.kind === "local" ? "agent" : "kernel",
          violations: "deny",
        }
  return { table, vm: record.name, kind }
}

function addTo<K>(map: Map<K, Set<string>>, key: K, value: string): void {
  const set = map.get(key)
  if (set) set.add(value)
  else map.set(key, new Set([value]))
}
