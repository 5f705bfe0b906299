/**
 * @module platform/acl
 *
 * Access of single other users to files of ours, as POSIX access control lists. The file stays its owner's, its mode
 * stays closed to everybody else, and no privilege is needed to say who may. What is asked for replaces what was there:
 * nobody keeps an access that is not named again.
 *
 * In a mode, the group's three bits then show the most that any named user has (the list's mask), not the group's.
 *
 * @spec acl(5); Linux include/uapi/linux/posix_acl_xattr.h
 */

import { ptr } from "bun:ffi"
import { chmodSync, lstatSync } from "node:fs"
import { MvmError } from "../lib/errors.ts"
import { lastErrno, libc, systemError } from "./ffi.ts"

const ACCESS_LIST = Buffer.from("system.posix_acl_access\0")
const VERSION = 2
const HEADER_BYTES = 4
const ENTRY_BYTES = 8
const MAX_LIST_BYTES = 4096
const NO_ID = 0xffff_ffff

const TAG = { userObj: 0x01, user: 0x02, groupObj: 0x04, group: 0x08, mask: 0x10, other: 0x20 } as const

const ENODATA = 61
const EOPNOTSUPP = 95

export const READ = 4
export const WRITE = 2
export const EXECUTE = 1

interface Entry {
  readonly tag: number
  /** A mask of READ, WRITE and EXECUTE. */
  readonly permissions: number
  /** Of a user or a group; {@link NO_ID} otherwise. */
  readonly id: number
}

/** A user as the kernel sees it. */
export interface Account {
  readonly uid: number
  readonly gids: readonly number[]
}

/** Which user may do what. */
export interface Grant {
  readonly uid: number
  /** A mask of READ, WRITE and EXECUTE. */
  readonly permissions: number
}

/**
 * Lets these users at `path`, beside its owner, and nobody else. No grants at all leaves the owner alone. The owner
 * keeps what the mode gives.
 *
 * @throws MvmError `io`; `setup` where the file system keeps no lists.
 */
export function shareWith(path: string, grants: readonly Grant[]): void {
  const { mode, uid: owner } = lstatSync(path)
  const others = grants.filter(({ uid }) => uid !== owner).toSorted((a, b) => a.uid - b.uid)
  if (others.length === 0) {
    const status = libc().lremovexattr(cString(path), ptr(ACCESS_LIST))
    if (status !== 0 && ![ENODATA, EOPNOTSUPP].includes(lastErrno())) throw systemError("lremovexattr")
    chmodSync(path, mode & 0o700)
    return
  }
  const list = encode([
    { tag: TAG.userObj, permissions: (mode >> 6) & 7, id: NO_ID },
    ...others.map(({ uid, permissions }) => ({ tag: TAG.user, permissions, id: uid })),
    { tag: TAG.groupObj, permissions: 0, id: NO_ID },
    { tag: TAG.mask, permissions: others.reduce((all, { permissions }) => all | permissions, 0), id: NO_ID },
    { tag: TAG.other, permissions: 0, id: NO_ID },
  ])
  if (libc().lsetxattr(cString(path), ptr(ACCESS_LIST), ptr(list), list.length, 0) === 0) return
  if (lastErrno() !== EOPNOTSUPP) throw systemError(`lsetxattr ${path}`)
  throw new MvmError("setup", `${path}: its file system keeps no access control lists`, {
    hint: "mount it with acl, or start with another --state",
  })
}

/** Lets one user more at `path`. @throws MvmError as {@link shareWith}. */
export function shareAlso(path: string, grant: Grant): void {
  const known = read(path)
    .filter(({ tag, id }) => tag === TAG.user && id !== grant.uid)
    .map(({ id, permissions }) => ({ uid: id, permissions }))
  shareWith(path, [...known, grant])
}

/** Whether single other users were let at `path`. @throws MvmError `io`. */
export function isShared(path: string): boolean {
  return read(path).some(({ tag }) => tag === TAG.user)
}

/**
 * Whether a process of that user needs a grant at files of ours: root, too, for libvirt may start QEMU without its
 * capabilities (`clear_emulator_capabilities` in qemu.conf).
 */
export function needsGrant(uid: number | undefined): uid is number {
  return uid !== undefined && uid !== process.geteuid?.()
}

/**
 * What a user with these groups may do at `path` by owner, group and list, that is, without a capability: a mask of
 * READ, WRITE and EXECUTE.
 *
 * @throws MvmError `io`.
 */
export function accessOf(path: string, who: Account): number {
  const { mode, uid, gid } = lstatSync(path)
  const list = read(path)
  const of = (tag: number): Entry | undefined => list.find((entry) => entry.tag === tag)
  if (uid === who.uid) return (mode >> 6) & 7
  const mask = of(TAG.mask)?.permissions ?? 7
  const named = list.find((entry) => entry.tag === TAG.user && entry.id === who.uid)
  if (named) return named.permissions & mask
  const groups = [
    ...(who.gids.includes(gid) ? [of(TAG.groupObj)?.permissions ?? (mode >> 3) & 7] : []),
    ...list
      .filter(({ tag, id }) => tag === TAG.group && who.gids.includes(id))
      .map((entry) => entry.permissions),
  ]
  // The kernel takes one entry that suffices; what all of them give together is what is asked here.
  return groups.length > 0 ? groups.reduce((all, each) => all | each, 0) & mask : mode & 7
}

function read(path: string): Entry[] {
  const list = Buffer.alloc(MAX_LIST_BYTES)
  const length = Number(libc().lgetxattr(cString(path), ptr(ACCESS_LIST), ptr(list), list.length))
  if (length < 0) {
    if ([ENODATA, EOPNOTSUPP].includes(lastErrno())) return []
    throw systemError(`lgetxattr ${path}`)
  }
  const count = Math.floor((length - HEADER_BYTES) / ENTRY_BYTES)
  return Array.from({ length: count }, (_, index) => {
    const at = HEADER_BYTES + index * ENTRY_BYTES
    return {
      tag: list.readUInt16LE(at),
      permissions: list.readUInt16LE(at + 2),
      id: list.readUInt32LE(at + 4),
    }
  })
}

/** In the order the kernel demands: by tag, users by id. */
function encode(entries: readonly Entry[]): Buffer {
  const list = Buffer.alloc(HEADER_BYTES + entries.length * ENTRY_BYTES)
  list.writeUInt32LE(VERSION, 0)
  entries.forEach(({ tag, permissions, id }, index) => {
    const at = HEADER_BYTES + index * ENTRY_BYTES
    list.writeUInt16LE(tag, at)
    list.writeUInt16LE(permissions, at + 2)
    list.writeUInt32LE(id, at + 4)
  })
  return list
}

function cString(path: string): Buffer {
  return Buffer.from(`${path}\0`)
}
