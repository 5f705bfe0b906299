/**
 * @module mvm/control/reference-import
 *
 * Reference values from a file: a manifest of our own, signed or not, what sha256sum printed, or the files of a
 * tree. A file is taken whole or refused whole.
 *
 * Signed files: ed25519 public keys in the state directory's `reference-keys/` (one a file: PEM, or 64 hex digits).
 * Where there is one, a file without a signature by one of them is refused.
 */

import { readdirSync } from "node:fs"
import { join } from "node:path"
import { fromUtf8 } from "../../lib/bytes.ts"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { readWhole } from "../../platform/durable-file.ts"
import {
  IMA_POLICY_PATHS,
  emptyReference,
  type MeasurementKind,
  type ReferenceTable,
} from "../../tcb/measurement/reference-table.ts"
import { parseReference } from "../reference/file.ts"
import { parseSha256sum } from "../reference/sha256sum.ts"
import { parseSigningKey, verifySignedReference } from "../reference/signature.ts"

export const KEY_FOLDER = "reference-keys"

const MAX_KEY_BYTES = 4096

/** Files of an image that every boot of it must have measured. */
const REQUIRED_OF_IMAGE = [...IMA_POLICY_PATHS, "/usr/bin/mvm"]

/** `tree` is a manifest that a command made of a directory, so it is for whichever kind of log the VM has. */
export const IMPORT_FORMATS = ["manifest", "sha256sum", "tree"] as const

export type ImportFormat = (typeof IMPORT_FORMATS)[number]

export interface ImportRequest {
  readonly format: ImportFormat
  readonly content: Uint8Array
  readonly signature: Uint8Array | undefined
  /** Texts of keys that the operator named; they count only where none is configured. */
  readonly keys: readonly string[]
  readonly kind: MeasurementKind
}

export interface Imported {
  readonly table: ReferenceTable
  /** SHA-256 (hex) of the key that signed. */
  readonly signedBy: string | undefined
}

/**
 * Nothing is stored here.
 *
 * @throws MvmError `config` with line and reason, `signature` for a file that is not signed as it must be
 */
export function readImport(stateDirectory: string, request: ImportRequest): Imported {
  const { format, content, signature, kind } = request
  const configured = configuredKeys(join(stateDirectory, KEY_FOLDER))
  const keys = configured.length > 0 ? configured : request.keys.map(parseSigningKey)
  if (signature === undefined) {
    if (keys.length > 0) {
      throw new MvmError("signature", "reference file: not signed, and signing keys are configured", {
        hint: "name its signature with --signature; nothing was imported",
      })
    }
    return { table: ofKind(readUnsigned(format, content, kind), kind, format), signedBy: undefined }
  }
  if (format !== "manifest") {
    throw new MvmError("usage", "only a manifest can be signed", { hint: "mvm measure export makes one" })
  }
  const { table, keyId } = verifySignedReference(content, signature, keys)
  return { table: ofKind(table, kind, format), signedBy: keyId }
}

function readUnsigned(format: ImportFormat, content: Uint8Array, kind: MeasurementKind): ReferenceTable {
  if (format === "sha256sum") return { ...emptyReference(kind), files: parseSha256sum(content) }
  const table = parseReference(content)
  if (format !== "tree" || kind !== "kernel") return table
  return { ...table, required: new Set(REQUIRED_OF_IMAGE.filter((path) => table.files.has(path))) }
}

function ofKind(table: ReferenceTable, kind: MeasurementKind, format: ImportFormat): ReferenceTable {
  if (table.measurementKind === kind || format !== "manifest") return table
  throw new MvmError(
    "config",
    `reference file: for a log kept by the ${table.measurementKind}, this one is kept by the ${kind}`,
    { hint: "nothing was imported, the values in force stay in force" },
  )
}

/** @throws MvmError `config` naming a file that holds no key: it must not silently mean fewer keys. */
function configuredKeys(directory: string): Uint8Array[] {
  let names: string[]
  try {
    names = readdirSync(directory)
  } catch (cause) {
    if (errnoOf(cause) === "ENOENT") return []
    throw new MvmError("io", `${directory}: ${errnoOf(cause) ?? "cannot be read"}`, { cause })
  }
  return names
    .filter((name) => !name.startsWith("."))
    .toSorted()
    .map((name) => {
      const path = join(directory, name)
      try {
        return parseSigningKey(fromUtf8(readWhole(path, { maxBytes: MAX_KEY_BYTES, guarded: true })!))
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause)
        throw new MvmError("config", `${path}: ${reason}`, { cause })
      }
    })
}
