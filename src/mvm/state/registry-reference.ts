/**
 * @module mvm/state/registry-reference
 *
 * Storage of reference values (RFC 9334): the (path, digest) pairs and PCR values a scope may show. A scope is a
 * VM's UUID or `group:NAME`. What they mean for a verdict is decided elsewhere.
 */

import { SHA256_BYTES } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { compileGlob } from "../../tcb/measurement/glob.ts"
import { isName } from "../../wire/schema.ts"
import type { StateDatabase } from "./database.ts"

const PCR_COUNT = 24
const MAX_PATH = 4096
const MAX_EXCLUDES = 256
const SCOPE_UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export interface ReferenceEntry {
  /** As the measurement log names it: a file's path, or a name such as `boot_aggregate`. */
  readonly path: string
  /** 32-byte SHA-256. */
  readonly digest: Uint8Array
  /** Where it came from: `learn`, `import`, `approve`, ... */
  readonly source: string
  /** Why, in the operator's words; may be empty. */
  readonly reason: string
  /** Evidence without this entry is untrusted. */
  readonly required: boolean
  readonly addedMs: number
}

export interface ReferencePcr {
  readonly index: number
  /** 32-byte value of the sha256 bank. */
  readonly digest: Uint8Array
  readonly source: string
  readonly reason: string
  readonly addedMs: number
}

/** Paths that are not judged. */
export interface ReferenceExclude {
  /** See tcb/measurement/glob. */
  readonly glob: string
  readonly reason: string
  readonly addedMs: number
}

export interface ReferenceTable {
  /** By path, then digest. */
  listReference(scope: string): ReferenceEntry[]
  /** Entries already there are replaced. How many were new. @throws MvmError `config`. */
  addReference(scope: string, entries: readonly ReferenceEntry[]): number
  /** All digests of `path`, or just one. How many were removed. */
  removeReference(scope: string, path: string, digest?: Uint8Array): number
  /** By index, then digest. */
  listPcrs(scope: string): ReferencePcr[]
  /** The values PCR `index` may have, in place of those it had. @throws MvmError `config`. */
  setPcr(scope: string, index: number, values: readonly Omit<ReferencePcr, "index">[]): void
  /** How many values were removed. */
  removePcr(scope: string, index: number): number
  /** By glob. */
  listExcludes(scope: string): ReferenceExclude[]
  /** One already there is replaced. @throws MvmError `config` for a bad glob, or too many of them. */
  addExclude(scope: string, exclude: ReferenceExclude): void
  /** Whether it was there. */
  removeExclude(scope: string, glob: string): boolean
  /** Removes every value of the scope, and says how many there were. */
  clearReference(scope: string): number
  /** Every scope that has values. */
  listScopes(): string[]
}

interface EntryRow {
  path: string
  digest: Uint8Array
  source: string
  reason: string
  required: bigint
  added_ms: bigint
}

interface PcrRow {
  pcr: bigint
  digest: Uint8Array
  source: string
  reason: string
  added_ms: bigint
}

interface ExcludeRow {
  glob: string
  reason: string
  added_ms: bigint
}

export function referenceTable(database: StateDatabase): ReferenceTable {
  const list = database.prepare<EntryRow>("SELECT * FROM reference WHERE scope = ? ORDER BY path, digest")
  const find = database.prepare<{ path: string }>(
    "SELECT path FROM reference WHERE scope = ? AND path = ? AND digest = ?",
  )
  const put = database.prepare("INSERT OR REPLACE INTO reference VALUES (?, ?, ?, ?, ?, ?, ?)")
  const dropPath = database.prepare("DELETE FROM reference WHERE scope = ? AND path = ?")
  const dropPair = database.prepare("DELETE FROM reference WHERE scope = ? AND path = ? AND digest = ?")
  const dropScope = database.prepare("DELETE FROM reference WHERE scope = ?")
  const pcrs = database.prepare<PcrRow>("SELECT * FROM reference_pcr WHERE scope = ? ORDER BY pcr, digest")
  const putPcr = database.prepare("INSERT OR REPLACE INTO reference_pcr VALUES (?, ?, ?, ?, ?, ?)")
  const dropPcr = database.prepare("DELETE FROM reference_pcr WHERE scope = ? AND pcr = ?")
  const dropPcrs = database.prepare("DELETE FROM reference_pcr WHERE scope = ?")
  const excludes = database.prepare<ExcludeRow>(
    "SELECT * FROM reference_exclude WHERE scope = ? ORDER BY glob",
  )
  const putExclude = database.prepare("INSERT OR REPLACE INTO reference_exclude VALUES (?, ?, ?, ?)")
  const dropExclude = database.prepare("DELETE FROM reference_exclude WHERE scope = ? AND glob = ?")
  const dropExcludes = database.prepare("DELETE FROM reference_exclude WHERE scope = ?")
  const scopes = database.prepare<{ scope: string }>(
    `SELECT scope FROM reference UNION SELECT scope FROM reference_pcr
      UNION SELECT scope FROM reference_exclude ORDER BY scope`,
  )
  return {
    listReference: (scope) => list.all(scope).map(toEntry),
    addReference(scope, entries) {
      checkScope(scope)
      return database.transaction(() => {
        let added = 0
        for (const { path, digest, source, reason, required, addedMs } of entries) {
          checkDigest(digest)
          if (path === "" || path.length > MAX_PATH)
            throw new MvmError("config", "reference.path: bad length")
          if (!find.get(scope, path, digest)) added++
          put.run(scope, path, digest, source, reason, required ? 1 : 0, addedMs)
        }
        return added
      })
    },
    removeReference(scope, path, digest) {
      return digest ? dropPair.run(scope, path, digest) : dropPath.run(scope, path)
    },
    listPcrs: (scope) => pcrs.all(scope).map(toPcr),
    setPcr(scope, index, values) {
      checkScope(scope)
      if (!Number.isInteger(index) || index < 0 || index >= PCR_COUNT) {
        throw new MvmError("config", `reference.pcr: ${index} is not 0 to ${PCR_COUNT - 1}`)
      }
      database.transaction(() => {
        dropPcr.run(scope, index)
        for (const { digest, source, reason, addedMs } of values) {
          checkDigest(digest)
          putPcr.run(scope, index, digest, source, reason, addedMs)
        }
      })
    },
    removePcr: (scope, index) => dropPcr.run(scope, index),
    listExcludes: (scope) =>
      excludes.all(scope).map(({ glob, reason, added_ms }) => ({ glob, reason, addedMs: Number(added_ms) })),
    addExclude(scope, { glob, reason, addedMs }) {
      checkScope(scope)
      compileGlob(glob)
      database.transaction(() => {
        putExclude.run(scope, glob, reason, addedMs)
        if (excludes.all(scope).length > MAX_EXCLUDES) {
          throw new MvmError("config", `reference.exclude: more than ${MAX_EXCLUDES} globs`)
        }
      })
    },
    removeExclude: (scope, glob) => dropExclude.run(scope, glob) > 0,
    clearReference: (scope) =>
      database.transaction(() => dropScope.run(scope) + dropPcrs.run(scope) + dropExcludes.run(scope)),
    listScopes: () => scopes.all().map((row) => row.scope),
  }
}

function toEntry(row: EntryRow): ReferenceEntry {
  const { path, digest, source, reason } = row
  return { path, digest, source, reason, required: row.required === 1n, addedMs: Number(row.added_ms) }
}

function toPcr(row: PcrRow): ReferencePcr {
  const { digest, source, reason } = row
  return { index: Number(row.pcr), digest, source, reason, addedMs: Number(row.added_ms) }
}

function checkScope(scope: string): void {
  if (SCOPE_UUID.test(scope) || (scope.startsWith("group:") && isName(scope.slice(6)))) return
  throw new MvmError(
    "config",
    `reference.scope: ${JSON.stringify(scope)} is neither a VM's uuid nor group:NAME`,
  )
}

function checkDigest(digest: Uint8Array): void {
  if (digest.length !== SHA256_BYTES) throw new MvmError("config", "reference.digest: not 32 bytes")
}
