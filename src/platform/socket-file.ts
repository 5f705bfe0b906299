/**
 * @module platform/socket-file
 *
 * The file of a listening unix socket: it takes the place of a socket that an earlier life left and of nothing else,
 * and at the end only what is still its own goes.
 *
 * The runtime removes whatever lies at the path that it bound when it stops, so the socket is bound under a name that
 * nobody knows, and only then linked to its own; a link is made whole, with its mode, or not at all.
 */

import { randomBytes } from "node:crypto"
import { chmodSync, linkSync, lstatSync, unlinkSync } from "node:fs"
import { dirname, join } from "node:path"
import { MvmError, errnoOf } from "../lib/errors.ts"

const NAME_BYTES = 3

export interface SocketFile<Listener> {
  readonly listener: Listener
  /** Removes the file, unless another lies there by now. To be called before the listener stops. */
  remove(): void
}

/**
 * A listener at `path`, where nothing may lie.
 *
 * @param bind listens at the path that it is given
 * @throws what `bind` does, and the runtime's errors: EEXIST when something lies at `path`.
 */
export function placeSocket<Listener extends { stop(): unknown }>(
  path: string,
  mode: number,
  bind: (path: string) => Listener,
): SocketFile<Listener> {
  const own = join(dirname(path), `.${randomBytes(NAME_BYTES).toString("hex")}`)
  const mask = process.umask(0o777 & ~mode)
  let listener: Listener
  try {
    listener = bind(own)
  } finally {
    process.umask(mask)
  }
  try {
    chmodSync(own, mode)
    const identity = identityOf(own)
    linkSync(own, path)
    unlinkSync(own)
    return {
      listener,
      remove: () => {
        if (identityOf(path) === identity) unlinkSync(path)
      },
    }
  } catch (error) {
    void listener.stop()
    throw error
  }
}

/**
 * Removes the socket that an earlier life left at `path`; nothing happens where nothing is.
 *
 * @throws MvmError `exists` for what is no socket.
 */
export function removeSocket(path: string): void {
  const there = lstatSync(path, { throwIfNoEntry: false })
  if (!there) return
  if (!there.isSocket()) throw new MvmError("exists", `${path} is there and is no socket`)
  try {
    unlinkSync(path)
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error
  }
}

/** Device and inode; undefined where nothing is. */
function identityOf(path: string): string | undefined {
  const there = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return there && `${there.dev}:${there.ino}`
}
