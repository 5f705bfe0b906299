/**
 * @module platform/installation
 *
 * Files that the program writes into a system, or into the tree of one that is not running, and takes away again.
 * What was written is recorded with its digest, so that a second run changes nothing, an upgrade replaces only what
 * nobody touched, and removal leaves what somebody changed.
 *
 * ```
 *  place on disk          recorded digest     install            uninstall
 *  nothing                -                   written            -
 *  the same content       same, or none       unchanged          removed, if recorded
 *  other content          of that content     updated            removed
 *  other content          another, or none    kept (or forced)   kept
 * ```
 *
 * Not here: users and groups (systemd-sysusers makes them), and files that a package manager owns.
 */

import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs"
import { dirname, join, resolve } from "node:path"
import { toHex, utf8 } from "../lib/bytes.ts"
import { sha256 } from "../lib/crypto.ts"
import { MvmError, errnoOf } from "../lib/errors.ts"

const RECORD_FOLDER = "/var/lib/mvm-install"

/** Paths here are absolute on the system that is installed to. */
export interface Installation {
  /** Of its record: "guest", "host". */
  readonly name: string
  readonly files: readonly { readonly path: string; readonly mode: number; readonly content: string }[]
  readonly links: readonly { readonly path: string; readonly target: string }[]
  readonly folders: readonly { readonly path: string; readonly mode: number }[]
}

export type Action = "written" | "updated" | "unchanged" | "kept" | "removed" | "ran" | "skipped" | "failed"

export interface Step {
  readonly action: Action
  readonly subject: string
  /** Why, where that is not plain. */
  readonly reason?: string
}

export interface ApplyOptions {
  /** The system's root; "/" is the one that runs. */
  readonly root: string
  /** Says what would be done and does nothing. */
  readonly dryRun?: boolean
  /** Replaces what somebody changed. */
  readonly force?: boolean
  /** Keeps no record: a package manager owns the files. */
  readonly unrecorded?: boolean
}

interface Entry {
  readonly path: string
  /** SHA-256 of the content, "-> TARGET" of a link, or "folder". */
  readonly is: string
  /** A folder that only had to be there for something else. */
  readonly isImplied?: boolean
}

/** @throws MvmError `refused` where this user may not write, `usage` for a root that is none, `io`. */
export function applyInstallation(plan: Installation, options: ApplyOptions): Step[] {
  const tree = new Tree(options)
  const before = tree.readRecord(plan.name)
  const recorded = new Map(before.map(({ path, is }) => [path, is]))
  const wanted = [
    ...plan.folders.map(({ path, mode }) => ({ path, is: "folder", make: () => tree.folder(path, mode) })),
    ...plan.files.map(({ path, mode, content }) => {
      return { path, is: digestOf(content), make: () => tree.write(path, mode, content) }
    }),
    ...plan.links.map(({ path, target }) => {
      return { path, is: `-> ${target}`, make: () => tree.link(path, target) }
    }),
  ]
  const steps: Step[] = []
  const ours: Entry[] = []
  const keep = (entries: readonly Entry[]): void => {
    if (!options.unrecorded) tree.writeRecord(plan.name, [...tree.made(before), ...entries])
  }
  try {
    for (const { path, is, make } of wanted) {
      const old = recorded.get(path)
      const action = actionFor({ old, there: tree.look(path), is, force: options.force ?? false })
      if (action === "written" || action === "updated") make()
      const reason = old === undefined ? "it was there before" : "somebody changed it"
      steps.push({ action, subject: path, ...(action === "kept" && { reason }) })
      const now = action === "kept" || (action === "unchanged" && old === undefined) ? old : is
      if (now !== undefined) ours.push({ path, is: now })
    }
  } catch (error) {
    // What was written before it failed is taken away by a removal, too; what is as it was recorded stays so.
    const reached = new Set(ours.map(({ path }) => path))
    keep([...ours, ...before.filter(({ path, isImplied }) => !isImplied && !reached.has(path))])
    throw error
  }
  // What an earlier version wrote and this one has no use for.
  const now = new Set(wanted.map(({ path }) => path))
  steps.push(...tree.remove(before.filter(({ path, isImplied }) => !now.has(path) && !isImplied)))
  keep(ours)
  return steps
}

function actionFor(found: {
  old: string | undefined
  there: string | undefined
  is: string
  force: boolean
}): Action {
  const { old, there, is, force } = found
  if (there === is) return "unchanged"
  if (there === undefined) return "written"
  return force || old === there ? "updated" : "kept"
}

/** Takes away what the record of `name` says. @throws as {@link applyInstallation}. */
export function removeInstallation(name: string, options: ApplyOptions): Step[] {
  const tree = new Tree(options)
  const record = tree.readRecord(name)
  const steps = tree.remove(record)
  tree.dropRecord(name)
  return steps
}

/** Whether an installation of that name is recorded under `root`. */
export function isInstalled(name: string, root: string): boolean {
  return new Tree({ root }).readRecord(name).length > 0
}

/** A directory as the root of a system. */
class Tree {
  readonly #root: string
  readonly #dryRun: boolean
  /** Folders that had to be made for a file, in order. */
  readonly #made: string[] = []

  constructor({ root, dryRun = false }: ApplyOptions) {
    try {
      this.#root = realpathSync(resolve(root))
    } catch (cause) {
      throw new MvmError("usage", `--root: ${root}: ${errnoOf(cause) ?? "cannot be used"}`, { cause })
    }
    this.#dryRun = dryRun
  }

  /** What is at `path`, in the words of {@link Entry}; undefined for nothing. */
  look(path: string): string | undefined {
    const at = this.#at(path)
    try {
      const stat = lstatSync(at)
      if (stat.isSymbolicLink()) return `-> ${readlinkSync(at)}`
      if (stat.isDirectory()) return "folder"
      return stat.isFile() ? digestOf(readFileSync(at)) : "something else"
    } catch (cause) {
      if (errnoOf(cause) === "ENOENT") return undefined
      throw failed(at, cause)
    }
  }

  write(path: string, mode: number, content: string): void {
    this.#doing(path, (at) => {
      const beside = `${at}.mvm-new`
      writeFileSync(beside, content, { mode })
      chmodSync(beside, mode)
      renameSync(beside, at)
    })
  }

  link(path: string, target: string): void {
    this.#doing(path, (at) => {
      rmSync(at, { force: true })
      symlinkSync(target, at)
    })
  }

  folder(path: string, mode: number): void {
    this.#doing(path, (at) => {
      mkdirSync(at)
      chmodSync(at, mode)
    })
  }

  /** Files before their folders; a folder stays while something is in it. */
  remove(entries: readonly Entry[]): Step[] {
    return entries.toReversed().flatMap(({ path, is, isImplied }): Step[] => {
      const there = this.look(path)
      if (there === undefined) return []
      if (there !== is) return [{ action: "kept", subject: path, reason: "somebody changed it" }]
      if (is === "folder") {
        const steps = this.#removeFolder(path)
        return isImplied ? [] : steps
      }
      this.#doing(path, unlinkSync)
      return [{ action: "removed", subject: path }]
    })
  }

  /** Folders made on the way, now or earlier. */
  made(before: readonly Entry[]): Entry[] {
    const earlier = before.filter(({ isImplied }) => isImplied)
    return [...earlier, ...this.#made.map((path) => ({ path, is: "folder", isImplied: true }))]
  }

  readRecord(name: string): Entry[] {
    const at = this.#at(recordPath(name))
    try {
      const { entries } = JSON.parse(readFileSync(at, "utf8")) as { entries: Entry[] }
      return entries
    } catch (cause) {
      if (errnoOf(cause) === "ENOENT") return []
      throw new MvmError("state", `${at}: not a record of an installation`, { cause })
    }
  }

  writeRecord(name: string, entries: readonly Entry[]): void {
    if (this.#dryRun) return
    const text = `${JSON.stringify({ entries }, null, 1)}\n`
    const path = recordPath(name)
    if (this.look(path) !== digestOf(text)) this.write(path, 0o644, text)
  }

  dropRecord(name: string): void {
    if (this.#dryRun) return
    rmSync(this.#at(recordPath(name)), { force: true })
    this.#removeFolder(RECORD_FOLDER)
  }

  #removeFolder(path: string): Step[] {
    if (this.#dryRun) return [{ action: "removed", subject: path }]
    try {
      rmdirSync(this.#at(path))
      return [{ action: "removed", subject: path }]
    } catch (cause) {
      if (errnoOf(cause) === "ENOENT") return []
      if (errnoOf(cause) !== "ENOTEMPTY") throw failed(path, cause)
      return [{ action: "kept", subject: path, reason: "something else is in it" }]
    }
  }

  #doing(path: string, work: (at: string) => void): void {
    if (this.#dryRun) return
    try {
      this.#makeParents(dirname(path))
      work(this.#at(path))
    } catch (cause) {
      throw cause instanceof MvmError ? cause : failed(path, cause)
    }
  }

  #makeParents(path: string): void {
    if (path === "/" || this.look(path) !== undefined) return
    this.#makeParents(dirname(path))
    mkdirSync(this.#at(path), { mode: 0o755 })
    if (path !== RECORD_FOLDER) this.#made.push(path)
  }

  /**
   * The place of `path` under the root. A link on the way is followed as the installed system would follow it: an
   * absolute one starts at the root, so nothing outside is touched.
   */
  #at(path: string): string {
    let at = this.#root
    const parts = dirname(path).split("/").filter(Boolean)
    for (let hops = 0; parts.length > 0;) {
      const part = parts.shift()!
      if (part === "..") {
        at = at === this.#root ? at : dirname(at)
        continue
      }
      const next = join(at, part)
      const target = linkTarget(next)
      if (target === undefined) at = next
      else {
        if ((hops += 1) > 40) throw new MvmError("io", `${path}: too many symbolic links`)
        if (target.startsWith("/")) at = this.#root
        parts.unshift(...target.split("/").filter((word) => word !== "" && word !== "."))
      }
    }
    return join(at, path.slice(path.lastIndexOf("/") + 1))
  }
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

function recordPath(name: string): string {
  return `${RECORD_FOLDER}/${name}.json`
}

function digestOf(content: string | Uint8Array): string {
  return toHex(sha256(typeof content === "string" ? utf8(content) : content))
}

function failed(path: string, cause: unknown): MvmError {
  const errno = errnoOf(cause) ?? "failed"
  const denied = errno === "EACCES" || errno === "EPERM"
  return new MvmError(denied ? "refused" : "io", `${path}: ${errno}`, {
    cause,
    hint: denied ? "run it as root" : undefined,
  })
}
