/**
 * @module guest/programs
 *
 * Which program is at the other end of a local socket: the kernel gives pid and uid, /proc the executable, and
 * its content is hashed once for each version of the file. A process that ends, is replaced by a later one with its
 * pid, or runs another program by the time the hash is known is refused.
 *
 * This is the measured agent's assertion, not a proof: a process that connects and becomes another program before
 * the agent looks is taken for the latter, and a socket may be held by more processes than the one that connected.
 */

import { createHash } from "node:crypto"
import { closeSync, fstatSync, openSync, readSync, readlinkSync, statSync, type BigIntStats } from "node:fs"
import { MvmError } from "../lib/errors.ts"
import { identifyImage, type ProcessImage } from "../platform/process.ts"
import type { Program } from "../wire/messages.ts"

const MAX_CACHED = 256
const BLOCK_BYTES = 1 << 20

export class ProgramIdentifier {
  /** Also those being worked out, so that a file is read once however many ask. */
  readonly #digests = new Map<string, Promise<Uint8Array>>()

  /** @throws MvmError `refused` when the process is gone or hides its executable. */
  async identify(pid: number, uid: number): Promise<Program> {
    const before = identifyImage(pid)
    const link = `/proc/${pid}/exe`
    let fd: number
    let path: string
    try {
      path = readlinkSync(link)
      fd = openSync(link, "r")
    } catch (error) {
      throw new MvmError("refused", "the calling program cannot be identified", {
        cause: error,
        hint: "the process ended, or it runs in another namespace",
      })
    }
    try {
      const stat = fstatSync(fd, { bigint: true })
      const key = [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(":")
      let digest = this.#digests.get(key)
      if (!digest) {
        if (this.#digests.size >= MAX_CACHED) this.#digests.clear()
        digest = hashFile(fd)
        this.#digests.set(key, digest)
        digest.catch(() => this.#digests.delete(key))
      }
      const program = { path: path.replace(/ \(deleted\)$/, "").slice(0, 1000), digest: await digest, uid }
      requireSame(before, pid, stat)
      return program
    } finally {
      closeSync(fd)
    }
  }
}

/** @throws MvmError `refused` unless the process still is what it was, and runs the file that was read. */
function requireSame(before: ProcessImage | undefined, pid: number, file: BigIntStats): void {
  const now = identifyImage(pid)
  const executable = statSync(`/proc/${pid}/exe`, { bigint: true, throwIfNoEntry: false })
  const same =
    before !== undefined &&
    now?.startTicks === before.startTicks &&
    now.layout === before.layout &&
    executable?.dev === file.dev &&
    executable.ino === file.ino
  if (!same)
    throw new MvmError("refused", "the calling process became another program while it was identified")
}

async function hashFile(fd: number): Promise<Uint8Array> {
  const hash = createHash("sha256")
  const buffer = new Uint8Array(BLOCK_BYTES)
  for (let at = 0; ;) {
    const got = readSync(fd, buffer, 0, BLOCK_BYTES, at)
    if (got === 0) return new Uint8Array(hash.digest())
    hash.update(buffer.subarray(0, got))
    at += got
    // The agent serves others meanwhile.
    if (at % (4 * BLOCK_BYTES) === 0) await Bun.sleep(0)
  }
}
