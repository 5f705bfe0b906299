/**
 * @module mvm/memory/holding
 *
 * A memory of its own for the channels of one pair of members, one channel at a time, and never for anybody else: a
 * file that is plugged into those of the two that are VMs. It is zero between two channels. A small file in the state
 * directory says what is plugged where, for the next life of the MVM.
 */

import { closeSync, ftruncateSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fromHex, toHex } from "../../lib/bytes.ts"
import { random } from "../../lib/crypto.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { punchHole } from "../../platform/posix.ts"
import { allocate, createSharedFile, readAt, requireRoom, writeAt } from "../../platform/shared-file.ts"
import { regionBytes, regionLayout } from "../../ring/layout.ts"
import type { Place } from "../../tcb/grant.ts"
import { Plug, type PlugState } from "./plug.ts"
import type { Plugger } from "./plugger.ts"

/** What the devices of all holdings are called by a VM's monitor begins with this. */
export const DEVICE_PREFIX = "mvm-"

export interface HoldingParts {
  /** What paths of memory files begin with */
  readonly prefix: string
  /** Where the small files are */
  readonly directory: string
  readonly plugger: Plugger
  readonly log: Log
  /** As {@link Plug}'s */
  readonly requestMs?: number | undefined
  /** After each change of where it is plugged. */
  onPlug(holding: Holding, plug: Plug, before: PlugState): void
}

export interface Holder {
  readonly uuid: string
  readonly name: string
  /** Has it as a device; else as a file */
  readonly isVm: boolean
}

interface End extends Holder {
  readonly plug: Plug | undefined
}

export interface HoldingSize {
  /** Of the file and the device */
  readonly sizeBytes: number
  readonly ringBytes: number
  readonly isTrial?: boolean
}

export interface StoredHolding {
  readonly id: string
  readonly path: string
  readonly tag: string
  readonly sizeBytes: number
  readonly ringBytes: number
  readonly isTrial: boolean
  readonly isRetired: boolean
  readonly ends: readonly (Holder & { readonly bus: string | null })[]
}

/**
 * `used` by a channel, or being plugged for one; `idle` between two; `retired` for good: its file has no name any more.
 */
export type HoldingUse = "used" | "idle" | "retired"

export class Holding {
  readonly id: string
  readonly tag: Uint8Array
  readonly sizeBytes: number
  readonly ringBytes: number
  readonly ends: readonly End[]
  use: HoldingUse = "used"
  /** performance.now() when a channel let go of it */
  usedMs = 0
  /** The channel that uses it is the last one. */
  isLast = false
  /** Only to see whether a guest finds it */
  readonly isTrial: boolean
  readonly path: string
  readonly #parts: HoldingParts
  #fd: number | undefined

  private constructor(parts: HoldingParts, stored: StoredHolding, fd: number | undefined) {
    const { id, path, sizeBytes } = stored
    this.#parts = parts
    this.id = id
    this.tag = fromHex(stored.tag)
    this.sizeBytes = sizeBytes
    this.ringBytes = stored.ringBytes
    this.isTrial = stored.isTrial
    this.path = path
    this.#fd = fd
    this.ends = stored.ends.map(({ bus, ...holder }) => {
      const device = { id: this.deviceId, path, sizeBytes }
      const onChange = (plug: Plug, before: PlugState): void => this.#changed(plug, before)
      const { plugger, log, requestMs } = parts
      const plug = holder.isVm
        ? new Plug({ vm: holder, device, plugger, log, requestMs, onChange }, bus ?? undefined)
        : undefined
      return { ...holder, plug }
    })
  }

  /** @throws MvmError `io`, `no_space`. */
  static create(parts: HoldingParts, holders: readonly Holder[], size: HoldingSize): Holding {
    const id = toHex(random(8))
    const path = `${parts.prefix}${id}`
    const fd = createSharedFile(path)
    try {
      ftruncateSync(fd, size.sizeBytes)
      const ends = holders.map((holder) => ({ ...holder, bus: null }))
      const tag = toHex(random(16))
      const holding = new Holding(
        parts,
        { id, path, tag, isTrial: false, ...size, isRetired: false, ends },
        fd,
      )
      holding.prepare()
      holding.#save()
      return holding
    } catch (error) {
      closeSync(fd)
      rmSync(path, { force: true })
      throw error
    }
  }

  /** One of an earlier life. A channel may claim it; else it is `idle`, or `retired` where its file is gone. */
  static restore(parts: HoldingParts, stored: StoredHolding): Holding {
    let fd: number | undefined
    try {
      if (!stored.isRetired) fd = openSync(stored.path, "r+")
    } catch {
      // Without its file it is of no use to anybody.
    }
    const holding = new Holding(parts, stored, fd)
    holding.use = fd === undefined ? "retired" : "idle"
    return holding
  }

  /** What a VM's monitor calls it. */
  get deviceId(): string {
    return `${DEVICE_PREFIX}${this.id}`
  }

  /** Every VM of the pair has it. */
  get isWhole(): boolean {
    return this.ends.every(({ plug }) => plug === undefined || plug.state === "plugged")
  }

  /** No VM has it. */
  get isAbsent(): boolean {
    return this.ends.every(({ plug }) => plug === undefined || plug.state === "absent")
  }

  get lengthBytes(): number {
    return regionBytes(this.ringBytes)
  }

  /** Whether it is these members', and theirs alone. */
  belongsTo(uuids: readonly string[]): boolean {
    const own = this.ends.map(({ uuid }) => uuid)
    return own.every((uuid) => uuids.includes(uuid)) && uuids.every((uuid) => own.includes(uuid))
  }

  plugOf(uuid: string): Plug | undefined {
    return this.ends.find((end) => end.uuid === uuid)?.plug
  }

  place(uuid: string): Place {
    const isVm = this.plugOf(uuid) !== undefined
    return { tag: this.tag, path: isVm ? "" : this.path, offset: 0 }
  }

  /** Makes a fresh region of it, whatever was in it. @throws MvmError `no_space`. */
  prepare(): void {
    if (this.#fd === undefined) return
    requireRoom(this.path, this.lengthBytes)
    this.zero()
    allocate(this.#fd, this.lengthBytes)
    writeAt(this.#fd, regionLayout(this.ringBytes, this.tag).header, 0)
  }

  /** The first bytes of it as they are now. @throws MvmError `io`. */
  peek(lengthBytes: number): Uint8Array {
    if (this.#fd === undefined) throw new MvmError("io", `memory ${this.id} is nobody's any more`)
    return readAt(this.#fd, lengthBytes, 0)
  }

  zero(): void {
    if (this.#fd !== undefined) punchHole(this.#fd, 0, this.sizeBytes)
  }

  /** Takes it from every VM; resolves when each let go or has ignored the requests. Its file has no name from now on. */
  async retire(): Promise<void> {
    if (this.use !== "retired") {
      this.use = "retired"
      this.zero()
      if (this.#fd !== undefined) closeSync(this.#fd)
      this.#fd = undefined
      rmSync(this.path, { force: true })
    }
    this.#note()
    await Promise.all(this.ends.map(({ plug }) => plug?.unplug()))
  }

  /** Leaves all as it is, for the next life of the MVM. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }

  #changed(plug: Plug, before: PlugState): void {
    if (plug.state === "plugging") this.#save()
    else this.#note()
    this.#parts.onPlug(this, plug, before)
  }

  /** Of what has come to be already: a file that cannot be written changes nothing of it. */
  #note(): void {
    try {
      this.#save()
    } catch (error) {
      this.#parts.log.error("memory_file", { memory: this.id, message: asMvmError(error).message })
    }
  }

  /** @throws Error of the file system. */
  #save(): void {
    const file = join(this.#parts.directory, `${this.id}.json`)
    if (this.use === "retired" && this.isAbsent) return rmSync(file, { force: true })
    const stored: StoredHolding = {
      id: this.id,
      path: this.path,
      tag: toHex(this.tag),
      sizeBytes: this.sizeBytes,
      ringBytes: this.ringBytes,
      isTrial: this.isTrial,
      isRetired: this.use === "retired",
      ends: this.ends.map(({ uuid, name, isVm, plug }) => ({ uuid, name, isVm, bus: plug?.bus ?? null })),
    }
    writeFileSync(`${file}.new`, JSON.stringify(stored), { mode: 0o600 })
    renameSync(`${file}.new`, file)
  }
}
