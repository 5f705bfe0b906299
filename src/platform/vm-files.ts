/**
 * @module platform/vm-files
 *
 * The files of a VM that QEMU opens, as this process may open them: its users, and its service manager, may keep it from
 * files that are there.
 */

import { accessSync, constants, statSync } from "node:fs"
import { dirname } from "node:path"
import { errnoOf } from "../lib/errors.ts"
import { userName } from "./users.ts"

export const VM_FILES = ["kernel", "initrd", "disk", "firmwareVars"] as const
export type VmFile = (typeof VM_FILES)[number]

/** Those that QEMU writes. */
const WRITTEN: ReadonlySet<VmFile> = new Set(["disk", "firmwareVars"])

export interface FileProblem {
  readonly why: string
  /** Undefined where only another file mends it. */
  readonly remedy?: string
}

/** Why QEMU, as a child of this process, could not open `path` as its `file`; undefined where it can. */
export function fileProblem(file: VmFile, path: string): FileProblem | undefined {
  const isWritten = WRITTEN.has(file)
  try {
    accessSync(path, isWritten ? constants.R_OK | constants.W_OK : constants.R_OK)
    return statSync(path).isDirectory() ? { why: "is a directory" } : undefined
  } catch (error) {
    return problemOf(errnoOf(error), path, isWritten ? "rw" : "r")
  }
}

function problemOf(errno: string | undefined, path: string, wanted: "r" | "rw"): FileProblem {
  switch (errno) {
    case "ENOENT":
      return { why: "no such file" }
    case "EACCES": {
      const user = userName(process.geteuid?.() ?? 0)
      return {
        why: "permission denied",
        remedy: `setfacl -m u:${user}:${wanted} ${path}; its folders must let ${user} pass, too`,
      }
    }
    case "EROFS":
      return { why: "read-only for the daemon", remedy: inUnit(`ReadWritePaths=${dirname(path)}`) }
    case "EPERM":
      return { why: "not among the devices of the daemon", remedy: inUnit(`DeviceAllow=${path} rw`) }
    default:
      return { why: errno ?? "cannot be opened" }
  }
}

/** @spec systemd.exec(5), systemd.resource-control(5) */
function inUnit(line: string): string {
  return `systemctl edit mvm, and under [Service]: ${line}; then systemctl restart mvm`
}
