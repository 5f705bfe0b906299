/**
 * @module platform/access
 *
 * What a process of another user may open, from what the kernel says of both: the daemon is not the user that asks
 * about it.
 */

import { readFileSync, realpathSync } from "node:fs"
import { dirname } from "node:path"
import { EXECUTE, READ, WRITE, accessOf } from "./acl.ts"
import { groupsOf } from "./group.ts"
import { findUser } from "./users.ts"

export interface Actor {
  readonly uid: number
  readonly gid: number
  /** Supplementary groups. */
  readonly groups: readonly number[]
}

export type Access = "open" | "denied" | "absent"

export function thisActor(): Actor {
  return {
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    groups: process.getgroups?.() ?? [],
  }
}

/** Who process `pid` acts as, or undefined when it is gone. @spec proc(5), /proc/PID/status */
export function actorOf(pid: number): Actor | undefined {
  let status: string
  try {
    status = readFileSync(`/proc/${pid}/status`, "latin1")
  } catch {
    return undefined
  }
  const numbers = (field: string): number[] => {
    const line = new RegExp(`^${field}:[ \\t]*(.*)$`, "m").exec(status)?.[1] ?? ""
    return line.split(/\s+/).filter(Boolean).map(Number)
  }
  // Real, effective, saved, file system.
  const [, uid = 0] = numbers("Uid")
  const [, gid = 0] = numbers("Gid")
  return { uid, gid, groups: numbers("Groups") }
}

/** A process of the user with this name or uid, as it would be; undefined for a user that this machine has not. */
export function actorNamed(nameOrUid: string): Actor | undefined {
  try {
    const { name, uid, gid } = findUser(nameOrUid)
    return { uid, gid, groups: groupsOf(name) }
  } catch {
    return undefined
  }
}

/** Whether `actor` may open `path` for reading, and for writing too where asked. */
export function accessTo(path: string, { uid, gid, groups }: Actor, { write = false } = {}): Access {
  let real: string
  try {
    real = realpathSync(path)
  } catch {
    return "absent"
  }
  // Root as it usually is: with the capability that modes and lists are nothing to.
  if (uid === 0) return "open"
  const who = { uid, gids: [gid, ...groups] }
  const may = (place: string, wanted: number): boolean => (accessOf(place, who) & wanted) === wanted
  if (!may(real, write ? READ | WRITE : READ)) return "denied"
  for (let folder = dirname(real); ; folder = dirname(folder)) {
    if (!may(folder, EXECUTE)) return "denied"
    if (folder === "/") return "open"
  }
}
