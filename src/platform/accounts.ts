/**
 * @module platform/accounts
 *
 * Users and groups by name, from the local files: the users of daemons are there.
 */

import { readFileSync } from "node:fs"
import { MvmError } from "../lib/errors.ts"

/** A user as the kernel sees it. */
export interface Account {
  readonly uid: number
  /** Its own group first. */
  readonly gids: readonly number[]
}

/** The user with this name or number. @throws MvmError `not_found`. */
export function account(nameOrUid: string): Account {
  const rows = table("/etc/passwd")
  const row = rows.find(([name]) => name === nameOrUid) ?? rows.find(([, , uid]) => uid === nameOrUid)
  if (row) {
    const [name, , uid, gid] = row
    return { uid: Number(uid), gids: [Number(gid), ...groupsOf(name ?? "")] }
  }
  if (/^\d{1,9}$/.test(nameOrUid)) return { uid: Number(nameOrUid), gids: [] }
  throw new MvmError("not_found", `there is no user ${nameOrUid}`, { hint: "getent passwd lists them" })
}

/** A user's name for people, or its number. */
export function accountName(uid: number): string {
  return table("/etc/passwd").find((row) => row[2] === String(uid))?.[0] ?? String(uid)
}

function groupsOf(name: string): number[] {
  return table("/etc/group")
    .filter((row) => (row[3] ?? "").split(",").includes(name))
    .map((row) => Number(row[2]))
}

function table(path: string): string[][] {
  return readFileSync(path, "utf8")
    .split("\n")
    .map((line) => line.split(":"))
}
