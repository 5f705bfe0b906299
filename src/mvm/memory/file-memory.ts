/**
 * @module mvm/memory/file-memory
 *
 * The memory of one channel between two local endpoints: a file that both map by its name, made for the channel and
 * removed with it.
 */

import { closeSync, existsSync, ftruncateSync, openSync, rmSync } from "node:fs"
import { fromHex, toHex } from "../../lib/bytes.ts"
import { random } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { createSharedFile, readAt, requireRoom, writeAt } from "../../platform/shared-file.ts"
import { regionBytes, regionLayout } from "../../ring/layout.ts"
import type { Place } from "../../tcb/grant.ts"
import type { ChannelMemory, StoredMemory } from "./channel-memory.ts"

export type StoredFile = Extract<StoredMemory, { readonly kind: "file" }>

export class FileMemory implements ChannelMemory {
  readonly isolation = "dedicated"
  readonly stored: StoredFile
  readonly ringBytes: number
  readonly lengthBytes: number
  readonly #onGone: (memory: FileMemory) => void

  private constructor(stored: StoredFile, onGone: (memory: FileMemory) => void) {
    this.stored = stored
    this.ringBytes = stored.ringBytes
    this.lengthBytes = regionBytes(stored.ringBytes)
    this.#onGone = onGone
  }

  /** @param prefix what its path begins with. @throws MvmError `io`, `no_space`. */
  static create(prefix: string, ringBytes: number, onGone: (memory: FileMemory) => void): FileMemory {
    const path = `${prefix}${toHex(random(8))}`
    const tag = random(16)
    const { lengthBytes, header } = regionLayout(ringBytes, tag)
    const fd = createSharedFile(path)
    try {
      requireRoom(path, lengthBytes)
      ftruncateSync(fd, lengthBytes)
      writeAt(fd, header, 0)
    } catch (error) {
      rmSync(path, { force: true })
      throw error
    } finally {
      closeSync(fd)
    }
    return new FileMemory({ kind: "file", path, tag: toHex(tag), ringBytes }, onGone)
  }

  /** One of an earlier life. @throws MvmError `state` when its file is gone. */
  static reclaim(stored: StoredFile, onGone: (memory: FileMemory) => void): FileMemory {
    if (!existsSync(stored.path)) throw new MvmError("state", `${stored.path} is gone`)
    return new FileMemory(stored, onGone)
  }

  get costBytes(): number {
    return this.lengthBytes
  }

  place(): Place {
    return { tag: fromHex(this.stored.tag), path: this.stored.path, offset: 0 }
  }

  async attach(): Promise<void> {}

  peek(lengthBytes: number): Uint8Array {
    const fd = openSync(this.stored.path, "r")
    try {
      return readAt(fd, lengthBytes, 0)
    } finally {
      closeSync(fd)
    }
  }

  /** Nobody can be made to unmap a file; without its name it is theirs until they do, and nobody else's. */
  revoke(): void {
    rmSync(this.stored.path, { force: true })
  }

  expire(): void {}

  free(): void {
    this.revoke()
    this.#onGone(this)
  }
}
