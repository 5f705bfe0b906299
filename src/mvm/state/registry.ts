/**
 * @module mvm/state/registry
 *
 * What the MVM remembers of its VMs: who they are, their public keys, the secrets that lock their vTPMs (sealed at
 * rest), and, through the tables it is put together from, what was measured and what is expected.
 *
 * A UUID is used once: removing a VM leaves a tombstone. A name is free again.
 */

import * as v from "valibot"
import { fromHex, toHex } from "../../lib/bytes.ts"
import { P256_PUBLIC_BYTES } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { isName } from "../../wire/schema.ts"
import { DAMAGED_HINT, type Query, StateDatabase, storedJson } from "./database.ts"
import { type ReferenceTable, referenceTable } from "./registry-reference.ts"
import { type TrustTable, trustTable } from "./registry-trust.ts"
import type { StateDir } from "./state-dir.ts"

const AUTH_BYTES = 32
const AUTH_NAMES = ["owner", "endorsement", "lockout"] as const
const MAX_TAGS = 64
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const text = v.pipe(v.string(), v.maxLength(4096))
const vmConfig = v.strictObject({
  kernel: v.optional(text),
  initrd: v.optional(text),
  append: v.optional(text),
  disk: v.optional(text),
  memoryMiB: v.pipe(v.number(), v.integer(), v.minValue(1)),
  cpus: v.pipe(v.number(), v.integer(), v.minValue(1)),
  net: v.picklist(["none", "user"]),
  firmware: v.picklist(["seabios", "ovmf"]),
  machine: v.picklist(["pc", "q35", "virt"]),
  /** Period of the measurements while a channel is open. */
  remeasureSeconds: v.pipe(v.number(), v.minValue(0)),
  /** What an entry means that the kernel could not vouch for; default `deny`. */
  violations: v.optional(v.picklist(["deny", "warn"])),
  /** `none`: the machine has no shared memory, its records are relayed; default `ivshmem`. */
  memoryDevice: v.optional(v.picklist(["ivshmem", "none"])),
  /** Started with the host. */
  autostart: v.optional(v.boolean()),
  /** The libvirt domain that it is. */
  libvirt: v.optional(
    v.strictObject({
      uri: text,
      /** The domain's own UUID: libvirt's, not the MVM's for this VM. */
      domain: v.pipe(v.string(), v.uuid()),
      /** What adoption replaced in the domain's XML, for taking it back. */
      replaced: v.optional(
        v.strictObject({
          lifecycle: v.record(v.string(), v.nullable(text)),
          pm: v.record(v.string(), v.nullable(text)),
          controllers: v.optional(v.array(v.strictObject({ type: text, index: text }))),
        }),
      ),
    }),
  ),
  /** User its QEMU runs as, where the MVM does not start it. */
  qemuUid: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
  /** User a local endpoint runs as. */
  uid: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
})
const tagList = v.pipe(
  v.array(v.custom<string>((tag) => typeof tag === "string" && isName(tag), "not a tag name")),
  v.maxLength(MAX_TAGS),
)
const storedName = v.pipe(v.string(), v.hexadecimal(), v.transform(fromHex))
const storedNames = v.strictObject({
  storage: storedName,
  attestation: storedName,
  identity: storedName,
  sealing: storedName,
})
/** `libvirt` and `external`: others start its QEMU, libvirt or a person. */
const KINDS = ["qemu", "local", "libvirt", "external"] as const

export type VmConfig = v.InferOutput<typeof vmConfig>

export interface VmRecord {
  readonly uuid: string
  readonly name: string
  readonly kind: (typeof KINDS)[number]
  readonly config: VmConfig
  /** 65-byte P-256 points. */
  readonly keys: {
    readonly attestation: Uint8Array
    readonly identity: Uint8Array
    readonly sealing: Uint8Array
  }
  /** 34-byte TPM Names by key. */
  readonly names: Readonly<Record<"storage" | "attestation" | "identity" | "sealing", Uint8Array>>
  /** 32 bytes each: the MVM's secrets. */
  readonly auths: {
    readonly owner: Uint8Array
    readonly endorsement: Uint8Array
    readonly lockout: Uint8Array
  }
  readonly tags: readonly string[]
  readonly createdMs: number
}

interface VmRow {
  uuid: string
  name: string
  kind: string
  config: string
  attestation_key: Uint8Array
  identity_key: Uint8Array
  sealing_key: Uint8Array
  names: string
  auths: Uint8Array
  tags: string
  created_ms: bigint
}

/** @throws MvmError `state`, `no_space`, `io`: see {@link StateDatabase.open}. */
export function openRegistry(stateDir: StateDir): Registry {
  const database = StateDatabase.open(stateDir.databaseFile)
  try {
    return new Registry(database, stateDir)
  } catch (error) {
    database.close()
    throw error
  }
}

/** Every method is one transaction; several become one inside `database.transaction`. */
export class Registry {
  readonly database: StateDatabase
  /** Clocks, verdicts and launches. */
  readonly trust: TrustTable
  /** Reference values. */
  readonly reference: ReferenceTable
  readonly #stateDir: StateDir
  readonly #insert: Query<never>
  readonly #byUuid: Query<VmRow>
  readonly #byName: Query<VmRow>
  readonly #all: Query<VmRow>
  readonly #delete: Query<never>
  readonly #bury: Query<never>
  readonly #buried: Query<{ uuid: string }>
  readonly #setConfig: Query<never>
  readonly #setTags: Query<never>
  readonly #decoded = new Map<string, { row: VmRow; record: VmRecord }>()

  constructor(database: StateDatabase, stateDir: StateDir) {
    this.database = database
    this.#stateDir = stateDir
    this.trust = trustTable(database)
    this.reference = referenceTable(database)
    this.#insert = database.prepare("INSERT INTO vm VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
    this.#byUuid = database.prepare("SELECT * FROM vm WHERE uuid = ?")
    this.#byName = database.prepare("SELECT * FROM vm WHERE name = ?")
    this.#all = database.prepare("SELECT * FROM vm ORDER BY name")
    this.#delete = database.prepare("DELETE FROM vm WHERE uuid = ?")
    this.#bury = database.prepare("INSERT INTO tombstone VALUES (?, ?, ?)")
    this.#buried = database.prepare("SELECT uuid FROM tombstone WHERE uuid = ?")
    this.#setConfig = database.prepare("UPDATE vm SET config = ? WHERE uuid = ?")
    this.#setTags = database.prepare("UPDATE vm SET tags = ? WHERE uuid = ?")
  }

  /** @throws MvmError `config` naming the bad field; `exists` for a name in use or a UUID ever used. */
  insertVm(record: VmRecord): void {
    const row = this.#toRow(record)
    this.database.transaction(() => {
      if (this.#byName.get(record.name)) {
        throw new MvmError("exists", `there is already a VM ${record.name}`, {
          hint: `mvm vm rm ${record.name} removes it`,
        })
      }
      if (this.#byUuid.get(record.uuid) || this.#buried.get(record.uuid)) {
        throw new MvmError("exists", `uuid ${record.uuid} was used before`)
      }
      this.#insert.run(...row)
    })
  }

  getVm(nameOrUuid: string): VmRecord | undefined {
    const row = this.#byName.get(nameOrUuid) ?? this.#byUuid.get(nameOrUuid.toLowerCase())
    return row && this.#cached(row)
  }

  /** By name. */
  listVms(): VmRecord[] {
    return this.#all.all().map((row) => this.#cached(row))
  }

  /** Forgets a VM with its trust, clock, launches and reference values. @throws MvmError `not_found`. */
  removeVm(uuid: string, nowMs = Date.now()): void {
    this.database.transaction(() => {
      const row = this.#byUuid.get(uuid)
      if (!row) throw unknownVm(uuid)
      this.#bury.run(uuid, row.name, nowMs)
      this.reference.clearReference(uuid)
      this.#delete.run(uuid)
      this.#decoded.delete(uuid)
    })
  }

  /** @throws MvmError `config`, `not_found`. */
  updateConfig(uuid: string, config: VmConfig): void {
    const json = JSON.stringify(checked(vmConfig, config, "config"))
    if (this.#setConfig.run(json, uuid) === 0) throw unknownVm(uuid)
  }

  /** @throws MvmError `config`, `not_found`. */
  setTags(uuid: string, tags: readonly string[]): void {
    const json = JSON.stringify(sortedTags(tags))
    if (this.#setTags.run(json, uuid) === 0) throw unknownVm(uuid)
  }

  close(): void {
    this.database.close()
  }

  #toRow(record: VmRecord) {
    const { uuid, name, keys, auths } = record
    if (!UUID.test(uuid)) throw new MvmError("config", "vm.uuid: not a lower-case uuid")
    // A name that looks like a UUID would make commands that take either ambiguous.
    if (!isName(name) || UUID.test(name.toLowerCase())) throw new MvmError("config", "vm.name: not a name")
    checkKeys(keys)
    const secrets = new Uint8Array(AUTH_NAMES.length * AUTH_BYTES)
    AUTH_NAMES.forEach((field, index) => {
      if (auths[field].length !== AUTH_BYTES) throw new MvmError("config", `vm.auths.${field}: not 32 bytes`)
      secrets.set(auths[field], index * AUTH_BYTES)
    })
    const names = Object.fromEntries(
      Object.entries(record.names).map(([key, tpmName]) => [key, toHex(tpmName)]),
    )
    return [
      uuid,
      name,
      checked(v.picklist(KINDS), record.kind, "kind"),
      JSON.stringify(checked(vmConfig, record.config, "config")),
      keys.attestation,
      keys.identity,
      keys.sealing,
      JSON.stringify(names),
      this.#stateDir.seal("vtpm auths", uuid, secrets),
      JSON.stringify(sortedTags(record.tags)),
      record.createdMs,
    ] as const
  }

  /** Decoding a row opens its secrets; a row that has not changed since is not decoded again. */
  #cached(row: VmRow): VmRecord {
    const known = this.#decoded.get(row.uuid)
    if (known && Bun.deepEquals(known.row, row)) return known.record
    const record = this.#toRecord(row)
    this.#decoded.set(row.uuid, { row, record })
    return record
  }

  #toRecord(row: VmRow): VmRecord {
    const { uuid, name } = row
    try {
      // A damaged page has any type where bytes were.
      const secrets = this.#stateDir.open("vtpm auths", uuid, bytesOf(row.auths, "auths"))
      const auth = (index: number): Uint8Array => secrets.slice(index * AUTH_BYTES, (index + 1) * AUTH_BYTES)
      const record: VmRecord = {
        uuid,
        name,
        kind: checked(v.picklist(KINDS), row.kind, "kind"),
        config: checked(vmConfig, storedJson(row.config, "vm.config"), "config"),
        keys: { attestation: row.attestation_key, identity: row.identity_key, sealing: row.sealing_key },
        names: checked(storedNames, storedJson(row.names, "vm.names"), "names"),
        auths: { owner: auth(0), endorsement: auth(1), lockout: auth(2) },
        tags: checked(tagList, storedJson(row.tags, "vm.tags"), "tags"),
        createdMs: Number(row.created_ms),
      }
      checkKeys(record.keys)
      return record
    } catch (cause) {
      if (cause instanceof MvmError && cause.code === "state_key") throw cause
      throw new MvmError("state", `vm ${name}: its record in the database is damaged`, {
        cause,
        hint: DAMAGED_HINT,
      })
    }
  }
}

function checkKeys(keys: VmRecord["keys"]): void {
  for (const [field, key] of Object.entries(keys)) {
    if (bytesOf(key, `keys.${field}`).length !== P256_PUBLIC_BYTES)
      throw new MvmError("config", `vm.keys.${field}: not 65 bytes`)
  }
}

function bytesOf(value: unknown, field: string): Uint8Array {
  if (value instanceof Uint8Array) return value
  throw new MvmError("config", `vm.${field}: not bytes`)
}

function sortedTags(tags: readonly string[]): string[] {
  return [...new Set(checked(tagList, [...tags], "tags"))].sort()
}

function checked<const S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  field: string,
): v.InferOutput<S> {
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const issue = result.issues[0]
  const where = ["vm", field, ...(issue.path ?? []).map((item) => String(item.key))].join(".")
  throw new MvmError("config", `${where}: ${issue.message.toLowerCase()}`)
}

function unknownVm(uuid: string): MvmError {
  return new MvmError("not_found", `there is no VM ${uuid}`, { hint: "mvm vm list shows them" })
}
