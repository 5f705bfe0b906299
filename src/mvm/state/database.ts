/**
 * @module mvm/state/database
 *
 * The sqlite file under registry and audit log: opened with WAL and a flush at every commit, its schema brought up
 * to date or refused, its failures turned into ours. Integers come out as bigint; callers narrow them.
 *
 * A flush holds up everything else this process does. Where somebody waits for it anyway, the commit is made without
 * ({@link StateDatabase.transactionUnsynced}) and the log file flushed by another thread
 * ({@link StateDatabase.synced}): what is on disk after that is the same.
 */

import { Database, SQLiteError, type SQLQueryBindings, type Statement } from "bun:sqlite"
import { closeSync, constants, fdatasync, openSync } from "node:fs"
import { errnoOf, MvmError } from "../../lib/errors.ts"
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts"

export const DAMAGED_HINT = "restore the state directory from a backup"

/** One prepared statement, made once and finalised when the database closes. */
export interface Query<Row> {
  get(...values: SQLQueryBindings[]): Row | undefined
  all(...values: SQLQueryBindings[]): Row[]
  /** How many rows it changed. */
  run(...values: SQLQueryBindings[]): number
}

export class StateDatabase {
  readonly path: string
  readonly #db: Database
  readonly #statements: Statement[] = []
  #depth = 0
  #afterCommit: (() => void)[] = []
  #walFd: number | undefined
  #syncing: Promise<void> | undefined
  #syncNext: Promise<void> | undefined

  private constructor(path: string, db: Database) {
    this.path = path
    this.#db = db
  }

  /**
   * Opens or makes the file at `path`, mode 0600.
   *
   * @throws MvmError `state` for a damaged file, another program's, or one of a newer mvm; `no_space`; `io`.
   */
  static open(path: string): StateDatabase {
    makePrivate(path)
    return guard(path, () => {
      const db = new Database(path, { readwrite: true, safeIntegers: true, strict: true })
      try {
        db.run("PRAGMA journal_mode = WAL")
        db.run("PRAGMA synchronous = FULL")
        db.run("PRAGMA foreign_keys = ON")
        db.run("PRAGMA trusted_schema = OFF")
        migrate(db, path)
      } catch (error) {
        db.close()
        throw error
      }
      return new StateDatabase(path, db)
    })
  }

  prepare<Row>(sql: string): Query<Row> {
    const statement = guard(this.path, () => this.#db.prepare<Row, SQLQueryBindings[]>(sql))
    this.#statements.push(statement)
    return {
      get: (...values) => guard(this.path, () => statement.get(...values) ?? undefined),
      all: (...values) => guard(this.path, () => statement.all(...values)),
      run: (...values) => guard(this.path, () => statement.run(...values).changes),
    }
  }

  /** Runs `work` as one transaction (nested calls join the outer one); whatever it throws undoes everything. */
  transaction<T>(work: () => T): T {
    if (this.#depth > 0) return work()
    this.#depth = 1
    let result: T
    try {
      result = guard(this.path, () => this.#db.transaction(work).immediate())
    } catch (error) {
      this.#afterCommit = []
      throw error
    } finally {
      this.#depth = 0
    }
    const waiting = this.#afterCommit
    this.#afterCommit = []
    for (const step of waiting) step()
    return result
  }

  /**
   * As {@link transaction}, outermost only. It outlives this process at once, and a power cut once {@link synced}
   * says so.
   *
   * @spec sqlite pragma synchronous: NORMAL leaves out only the flush of the log after a commit
   */
  transactionUnsynced<T>(work: () => T): T {
    this.#db.run("PRAGMA synchronous = NORMAL")
    try {
      return this.transaction(work)
    } finally {
      this.#db.run("PRAGMA synchronous = FULL")
    }
  }

  /** Resolves when every transaction that ended before the call is on disk. @throws MvmError `io`. */
  synced(): Promise<void> {
    if (!this.#syncing) return (this.#syncing = this.#sync())
    // The flush under way may have begun before the newest commit; one more serves all who ask meanwhile.
    this.#syncNext ??= this.#syncing
      .catch(() => {})
      .then(() => {
        this.#syncNext = undefined
        return (this.#syncing = this.#sync())
      })
    return this.#syncNext
  }

  /** Runs `step` once the transaction under way is on disk, or now where there is none; never after a rollback. */
  afterCommit(step: () => void): void {
    if (this.#depth > 0) this.#afterCommit.push(step)
    else step()
  }

  close(): void {
    for (const statement of this.#statements.splice(0)) statement.finalize()
    this.#db.close(true)
    if (this.#walFd !== undefined) closeSync(this.#walFd)
  }

  async #sync(): Promise<void> {
    try {
      // The file stays the same one for as long as the database is open.
      const fd = (this.#walFd ??= openSync(`${this.path}-wal`, constants.O_RDWR))
      await new Promise<void>((resolve, reject) => {
        fdatasync(fd, (error) => (error ? reject(error) : resolve()))
      })
    } catch (cause) {
      const errno = errnoOf(cause) ?? "unknown"
      throw new MvmError("io", `${this.path}: cannot be flushed to disk (${errno})`, { cause })
    } finally {
      this.#syncing = undefined
    }
  }
}

/** JSON out of a column. @throws MvmError `state` when the file was damaged there. */
export function storedJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new MvmError("state", `${what}: damaged in the database`, { cause, hint: DAMAGED_HINT })
  }
}

function migrate(db: Database, path: string): void {
  const number = (pragma: string): number => {
    const row = db.prepare<Record<string, bigint>, []>(`PRAGMA ${pragma}`)
    try {
      return Number(Object.values(row.get() ?? {})[0] ?? 0n)
    } finally {
      row.finalize()
    }
  }
  const version = number("user_version")
  const application = number("application_id")
  if (application !== APPLICATION_ID && (application !== 0 || version !== 0)) {
    throw new MvmError("state", `${path}: not a database of mvm`, { hint: "start with another --state" })
  }
  if (version > MIGRATIONS.length) {
    throw new MvmError(
      "state",
      `${path}: made by a newer mvm (schema ${version}, this one knows ${MIGRATIONS.length})`,
      {
        hint: "run that mvm, or restore a backup made before the upgrade",
      },
    )
  }
  if (version === MIGRATIONS.length) return
  const upgrade = db.transaction(() => {
    for (const sql of MIGRATIONS.slice(version)) db.run(sql)
    db.run(`PRAGMA application_id = ${APPLICATION_ID}`)
    db.run(`PRAGMA user_version = ${MIGRATIONS.length}`)
  })
  upgrade.immediate()
}

/** sqlite makes its -wal and -shm files with the mode of the main file. */
function makePrivate(path: string): void {
  try {
    closeSync(openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600))
  } catch (cause) {
    throw new MvmError("io", `${path}: cannot be opened (${errnoOf(cause) ?? "unknown"})`, { cause })
  }
}

function guard<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw error instanceof SQLiteError ? translate(path, error) : error
  }
}

function translate(path: string, cause: SQLiteError): MvmError {
  const code = cause.code ?? ""
  if (/^SQLITE_(CORRUPT|NOTADB)/.test(code)) {
    return new MvmError("state", `${path}: the database is damaged`, {
      cause,
      hint: `restore ${path} from a backup, or move it away: the VMs must then be created again`,
    })
  }
  if (code === "SQLITE_FULL") {
    return new MvmError("no_space", `${path}: no space left to write`, {
      cause,
      hint: "free some space on that file system",
    })
  }
  if (/^SQLITE_BUSY/.test(code)) {
    return new MvmError("state", `${path}: another process holds the database`, {
      cause,
      hint: "close whatever program has it open",
    })
  }
  if (/^SQLITE_(CONSTRAINT)/.test(code)) return new MvmError("exists", `${path}: ${cause.message}`, { cause })
  return new MvmError("state", `${path}: ${code || "sqlite"}: ${cause.message}`, { cause })
}
