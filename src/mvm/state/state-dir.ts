/**
 * @module mvm/state/state-dir
 *
 * The one directory an MVM keeps its state in, held by one process at a time:
 *
 * ```
 * mvm.db        registry and audit log (sqlite, WAL)
 * audit.head    the newest signed head of the audit log
 * state.key     master state key (absent when the operator keeps it elsewhere)
 * state.check   tells a wrong master key
 * identity.key  the MVM's private key, sealed under the master key
 * lock          held while an MVM runs
 * vms/ run/ logs/
 * ```
 */

import { mkdirSync, realpathSync, statSync } from "node:fs"
import { join, resolve } from "node:path"
import { errnoOf, MvmError } from "../../lib/errors.ts"
import { lockFile } from "../../platform/file-lock.ts"
import { openIdentity, openStateKeys } from "./state-keys.ts"

const FOLDERS = ["vms", "run", "logs"] as const
const OPEN_TO_OTHERS = 0o022

export interface StateDirOptions {
  /** A file of 32 raw bytes, private to this user; default: `state.key` in the directory, made on first use. */
  readonly stateKeyFile?: string | undefined
}

export interface StateDir {
  /** Absolute, symbolic links resolved. */
  readonly path: string
  readonly vmsDir: string
  readonly runDir: string
  readonly logsDir: string
  readonly databaseFile: string
  readonly auditHeadFile: string
  readonly identity: ReturnType<typeof openIdentity>
  /** 32-byte key for the vTPM state of one VM. */
  vmStateKey(uuid: string): Uint8Array
  /** A secret at rest: `nonce || ciphertext || tag`, which opens only for the same purpose and subject. */
  seal(purpose: string, subject: string, plaintext: Uint8Array): Uint8Array
  /** @throws MvmError `state_key`. */
  open(purpose: string, subject: string, sealed: Uint8Array): Uint8Array
  /** Lets another process have the directory. Nothing else here is used afterwards. */
  close(): void
}

/** The MVM's P-256 key pair; its private half never leaves the object. */
export type MvmIdentity = StateDir["identity"]

/**
 * Opens the state directory at `path`, making it (mode 0700) and what belongs in it on first use.
 *
 * @throws MvmError `already_running` while another process holds it; `state` for a directory that others own or
 * can write; `state_key`; `no_space`; `io`.
 */
export async function openStateDir(path: string, options: StateDirOptions = {}): Promise<StateDir> {
  const real = ownDirectory(resolve(path))
  const lock = lockFile(join(real, "lock"))
  if (!lock.held) throw alreadyRunning(real, lock.pid)
  try {
    const [vmsDir, runDir, logsDir] = FOLDERS.map((folder) => ownDirectory(join(real, folder)))
    const keys = openStateKeys(real, options.stateKeyFile)
    return {
      path: real,
      vmsDir: vmsDir!,
      runDir: runDir!,
      logsDir: logsDir!,
      databaseFile: join(real, "mvm.db"),
      auditHeadFile: join(real, "audit.head"),
      identity: openIdentity(real, keys),
      vmStateKey: (uuid) => keys.derive("vtpm state", uuid),
      seal: (purpose, subject, plaintext) => keys.seal(purpose, subject, plaintext),
      open: (purpose, subject, sealed) => keys.open(purpose, subject, sealed),
      close: () => lock.release(),
    }
  } catch (error) {
    lock.release()
    throw error
  }
}

function ownDirectory(path: string): string {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    const real = realpathSync(path)
    const stat = statSync(real)
    if (stat.uid !== process.geteuid?.()) {
      throw new MvmError("state", `${path}: belongs to another user (uid ${stat.uid})`, {
        hint: "run mvm as that user, or start with another --state",
      })
    }
    if ((stat.mode & OPEN_TO_OTHERS) !== 0) {
      throw new MvmError("state", `${path}: other users can write to it`, { hint: `chmod go-w ${path}` })
    }
    return real
  } catch (cause) {
    if (cause instanceof MvmError) throw cause
    const errno = errnoOf(cause)
    if (errno === "ENOSPC") throw new MvmError("no_space", `${path}: the file system is full`, { cause })
    throw new MvmError("state", `${path}: cannot be used as state directory (${errno ?? "unknown"})`, {
      cause,
      hint: "start with --state DIR, a directory this user can make and write",
    })
  }
}

function alreadyRunning(path: string, pid: number | undefined): MvmError {
  const who = pid === undefined ? "another process" : `process ${pid}`
  return new MvmError("already_running", `${path}: ${who} already uses this state directory`, {
    hint:
      pid === undefined
        ? "stop it, or start with another --state"
        : `stop it (kill ${pid}), or start with another --state`,
  })
}
