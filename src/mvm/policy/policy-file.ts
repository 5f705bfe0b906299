/**
 * @module mvm/policy/policy-file
 *
 * The policy file as it changes under a running MVM. A file that is absent, broken, unreadable or open to
 * everybody's hand denies everything and says why.
 *
 * A change counts once the file has rested: an editor that writes in place passes through states that may be
 * valid and mean something else (a rule whose `programs` line is not written yet).
 */

import { type FSWatcher, statSync, watch } from "node:fs"
import { basename, dirname } from "node:path"
import { asMvmError, errnoOf, MvmError } from "../../lib/errors.ts"
import { readWhole } from "../../platform/durable-file.ts"
import { MAX_POLICY_BYTES, parsePolicy } from "./parse.ts"
import type { BrokenPolicy, Policy } from "./policy.ts"

/** Finds what the watch missed: a folder replaced, a network file system. */
const POLL_MS = 2000
const REST_MS = 100

export class PolicyFile {
  readonly path: string
  #current: Policy | BrokenPolicy
  #stamp: string
  #loadedMs = Date.now()
  #watcher: FSWatcher | undefined
  #poll: ReturnType<typeof setInterval> | undefined
  #rest: ReturnType<typeof setTimeout> | undefined

  /** Reads the file at once. */
  constructor(path: string) {
    this.path = path
    this.#stamp = stampOf(path)
    this.#current = load(path)
  }

  get current(): Policy | BrokenPolicy {
    return this.#current
  }

  /** For status displays. */
  describe(): {
    file: string
    state: "ok" | "broken"
    rules: number
    reason: string | undefined
    loadedMs: number
  } {
    const { path: file, current } = this
    const loadedMs = this.#loadedMs
    return "error" in current
      ? { file, state: "broken", rules: 0, reason: current.error.message, loadedMs }
      : { file, state: "ok", rules: current.rules.length, reason: undefined, loadedMs }
  }

  /** Reads the file now, whatever its times say. */
  reload(): Policy | BrokenPolicy {
    this.#stamp = stampOf(this.path)
    this.#current = load(this.path)
    this.#loadedMs = Date.now()
    return this.#current
  }

  /** Calls `onChange` after each change that was taken over, until {@link close}. */
  watch(onChange: (current: Policy | BrokenPolicy) => void): void {
    this.close()
    const look = (): void => {
      if (this.#rest !== undefined || stampOf(this.path) === this.#stamp) return
      this.#rest = setTimeout(settle, REST_MS, stampOf(this.path))
    }
    const settle = (before: string): void => {
      const now = stampOf(this.path)
      this.#rest = undefined
      if (now === this.#stamp) return
      if (now !== before) {
        this.#rest = setTimeout(settle, REST_MS, now)
        return
      }
      const current = this.reload()
      this.#listen(look)
      onChange(current)
    }
    this.#listen(look)
    this.#poll = setInterval(look, POLL_MS)
    this.#poll.unref()
  }

  /**
   * To the file, and to its folder only while there is none: a state directory is written to with every channel. What
   * replaces the file ends the watch of the old one with an event, and is listened to once it was taken over. The poll
   * finds what says nothing: a link that points elsewhere, a replaced file that somebody still holds.
   */
  #listen(look: () => void): void {
    this.#watcher?.close()
    this.#watcher = undefined
    try {
      const isThere = statSync(this.path, { throwIfNoEntry: false }) !== undefined
      this.#watcher = watch(isThere ? this.path : dirname(this.path), look)
      this.#watcher.on("error", () => {})
    } catch {
      // The poll finds changes too, only later.
    }
    // What changed before it was listened to.
    look()
  }

  /** Resolves once the file as it is now was taken over; at most as long as the poll takes. */
  async settled(): Promise<void> {
    const deadline = performance.now() + POLL_MS
    while (this.#poll && stampOf(this.path) !== this.#stamp && performance.now() < deadline) {
      await Bun.sleep(REST_MS / 10)
    }
  }

  close(): void {
    this.#watcher?.close()
    clearInterval(this.#poll)
    clearTimeout(this.#rest)
    this.#watcher = undefined
    this.#poll = undefined
    this.#rest = undefined
  }
}

/**
 * The policy at `path` as it is now. `owner` is the daemon's user, where that is another.
 *
 * @throws MvmError `policy_broken`, also for a file that is absent.
 */
export function readPolicy(path: string, owner?: number): Policy {
  const policy = load(path, owner)
  if ("error" in policy) throw policy.error
  return policy
}

function load(path: string, owner?: number): Policy | BrokenPolicy {
  const file = basename(path)
  try {
    const bytes = readWhole(path, { maxBytes: MAX_POLICY_BYTES, guarded: true, owner })
    if (!bytes) {
      return {
        file,
        error: new MvmError("policy_broken", `${path}: there is no policy, so nothing is allowed`, {
          hint: `for example: printf '[[rule]]\\nservice = "*"\\nfrom = "a"\\nto = "b"\\naction = "allow"\\n' >${path}`,
        }),
      }
    }
    return parsePolicy(decode(bytes, file), file)
  } catch (cause) {
    const error = asMvmError(cause, "policy_broken")
    if (error.code === "policy_broken") return { file, error }
    const { message, hint } = error
    return { file, error: new MvmError("policy_broken", message, { hint, cause }) }
  }
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new MvmError("policy_broken", `${file}:1:1: not UTF-8`, { cause })
  }
}

/** Changes with whatever may change the content. */
function stampOf(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
    return [dev, ino, size, mtimeNs, ctimeNs].join(" ")
  } catch (error) {
    return errnoOf(error) ?? "unknown"
  }
}
