/**
 * @module platform/users
 *
 * Users of this machine by name. The runtime starts a program under a uid and a gid and knows no names; it gives it
 * no supplementary groups.
 *
 * Not here: directories other than /etc/passwd.
 *
 * @spec passwd(5)
 */

import { readFileSync } from "node:fs"
import { MvmError, errnoOf } from "../lib/errors.ts"

export interface User {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
  readonly shell: string
}

const PASSWD = "/etc/passwd"
const FIELDS = 7

/** The user of that name, or of that number written in decimal. @throws MvmError `not_found`, `io`. */
export function findUser(name: string, path = PASSWD): User {
  const found = readUsers(path).find((user) => user.name === name || String(user.uid) === name)
  if (found) return found
  throw new MvmError("not_found", `there is no user ${name}`, { hint: `${path} lists those that there are` })
}

/** A user's name for people, or its number. */
export function userName(uid: number, path = PASSWD): string {
  return readUsers(path).find((user) => user.uid === uid)?.name ?? String(uid)
}

/** The user this process runs as, as far as the machine knows it. */
export function ownUser(path = PASSWD): User | undefined {
  try {
    return readUsers(path).find(({ uid }) => uid === process.geteuid?.())
  } catch {
    return undefined
  }
}

function readUsers(path: string): User[] {
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (cause) {
    throw new MvmError("io", `cannot read ${path}: ${errnoOf(cause) ?? "failed"}`, { cause })
  }
  return text.split("\n").flatMap((line) => {
    const fields = line.split(":")
    const [name = "", , uid = "", gid = "", , home = "", shell = ""] = fields
    if (fields.length !== FIELDS || name === "" || !isId(uid) || !isId(gid)) return []
    return [{ name, uid: Number(uid), gid: Number(gid), home: home || "/", shell: shell || "/bin/sh" }]
  })
}

/** 2^32 - 1 is nobody's: it means "leave as it is" to the kernel. */
function isId(text: string): boolean {
  return /^[0-9]{1,10}$/.test(text) && Number(text) < 0xffff_ffff
}
