/**
 * @module platform/group
 *
 * Groups by name, from the local file: the groups that daemons make are there.
 */

import { readFileSync } from "node:fs"
import { MvmError } from "../lib/errors.ts"

/** The id of the group with this name or number. @throws MvmError `not_found`. @spec group(5) */
export function groupId(nameOrGid: string): number {
  const row = readGroups().find(([name]) => name === nameOrGid)
  if (row) return Number(row[2])
  if (/^\d{1,9}$/.test(nameOrGid)) return Number(nameOrGid)
  throw new MvmError("not_found", `there is no group ${nameOrGid}`, {
    hint: `groupadd --system ${nameOrGid}`,
  })
}

/** Ids of the groups that a user was put in beside its own. */
export function groupsOf(user: string): number[] {
  return readGroups()
    .filter(([, , , members = ""]) => members.split(",").includes(user))
    .map(([, , gid]) => Number(gid))
}

function readGroups(): string[][] {
  return readFileSync("/etc/group", "utf8")
    .split("\n")
    .map((line) => line.split(":"))
}
