/**
 * @module platform/access
 *
 * What a process of another user may open, from what the kernel says of both: the daemon is not the user that asks
 * about it.
 */

import { readFileSync, statSync, type Stats } from "node:fs"
import { dirname } from "node:path"

export interface Actor {
  readonly uid: number
  readonly gid: number
  /** Supplementary groups. */
  readonly groups: readonly number[]
}

export type Access = "open" | "denied" | "absent"

const READ = 4
const WRITE = 2
const SEARCH = 1

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

/** Whether `actor` may open `path` for reading, and for writing too where asked. Access lists are not looked at. */
export function accessTo(path: string, actor: Actor, { write = false } = {}): Access {
  let stat: Stats
  try {
    stat = statSync(path)
  } catch {
    return "absent"
  }
  const wanted = READ | (write ? WRITE : 0)
  if (!allows(stat, actor, wanted)) return "denied"
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    if (!allows(statSync(folder), actor, SEARCH)) return "denied"
    if (folder === "/") return "open"
  }
}

function allows({ mode, uid, gid }: Stats, actor: Actor, wanted: number): boolean {
  if (actor.uid === 0) return true
  const isOfGroup = actor.gid === gid || actor.groups.includes(gid)
  const bits = actor.uid === uid ? mode >> 6 : isOfGroup ? mode >> 3 : mode
  return (bits & wanted) === wanted
}
