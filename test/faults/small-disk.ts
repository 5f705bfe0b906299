/**
 * @module test/faults/small-disk
 *
 * A file system of a test's own that can be filled to its last byte, made read-only, and given back. Needs root.
 */

import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const FILLER_STEP = 4096

export class SmallDisk {
  readonly path = mkdtempSync(join(tmpdir(), "mvd-"))

  constructor(size: string) {
    run("mount", "-t", "tmpfs", "-o", `size=${size},mode=0700`, "tmpfs", this.path)
  }

  /** A folder on it, mode 0700. */
  folder(name: string): string {
    const path = join(this.path, name)
    mkdirSync(path, { mode: 0o700 })
    return path
  }

  /** Leaves not a page free. */
  fill(): void {
    const { bavail, bsize } = statfsSync(this.path)
    const filler = new Uint8Array(bavail * bsize)
    try {
      writeFileSync(join(this.path, "filler"), filler)
      for (let more = 0; ; more++)
        writeFileSync(join(this.path, `filler-${more}`), filler.subarray(0, FILLER_STEP))
    } catch {
      // That was the last page.
    }
  }

  empty(): void {
    for (const name of new Bun.Glob("filler*").scanSync(this.path)) rmSync(join(this.path, name))
  }

  writable(isWritable: boolean): void {
    run("mount", "-o", `remount,${isWritable ? "rw" : "ro"}`, this.path)
  }

  remove(): void {
    run("umount", "-l", this.path)
    rmSync(this.path, { recursive: true, force: true })
  }
}

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command)
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`)
}
