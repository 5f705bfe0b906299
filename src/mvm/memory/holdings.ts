/**
 * @module mvm/memory/holdings
 *
 * All memories that are or were plugged into VMs: what each VM has of them, which of its places are free, and what
 * an earlier life of the MVM left.
 */

import { mkdirSync, readFileSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { Holding, type Holder, type HoldingParts, type HoldingSize, type StoredHolding } from "./holding.ts"
import type { Plug, PlugState } from "./plug.ts"
import type { Plugger } from "./plugger.ts"

export interface HoldingsParts {
  readonly directory: string
  readonly prefix: string
  readonly plugger: Plugger
  readonly log: Log
  readonly requestMs?: number | undefined
  onPlug(holding: Holding, plug: Plug, before: PlugState): void
}

/** A VM's places for devices of shared memory. */
export interface Places {
  readonly free: number
  readonly all: number
  /** Its monitor answers. */
  readonly known: boolean
}

export class Holdings {
  readonly #all = new Map<string, Holding>()
  readonly #parts: HoldingParts
  readonly #plugger: Plugger

  constructor(parts: HoldingsParts) {
    this.#plugger = parts.plugger
    this.#parts = {
      ...parts,
      onPlug: (holding, plug, before) => {
        this.#forget(holding)
        parts.onPlug(holding, plug, before)
      },
    }
    mkdirSync(parts.directory, { recursive: true, mode: 0o700 })
  }

  all(): Holding[] {
    return [...this.#all.values()]
  }

  get(id: string): Holding | undefined {
    return this.#all.get(id)
  }

  /** Kept for the next channel of exactly these members, the one that was used last first. */
  idleOf(holders: readonly Holder[]): Holding[] {
    const uuids = holders.map(({ uuid }) => uuid)
    return this.all()
      .filter((holding) => holding.use === "idle" && holding.isWhole && holding.belongsTo(uuids))
      .sort((a, b) => b.usedMs - a.usedMs)
  }

  /** @throws MvmError `io`, `no_space`. */
  create(holders: readonly Holder[], size: HoldingSize): Holding {
    const holding = Holding.create(this.#parts, holders, size)
    this.#all.set(holding.id, holding)
    return holding
  }

  /** What an earlier life left: all of it idle, or retired. */
  restore(): void {
    for (const file of readdirSync(this.#parts.directory)) {
      const path = join(this.#parts.directory, file)
      try {
        const stored = JSON.parse(readFileSync(path, "utf8")) as StoredHolding
        this.#all.set(stored.id, Holding.restore(this.#parts, stored))
      } catch (error) {
        this.#parts.log.error("memory_file_unreadable", { path, message: asMvmError(error).message })
        rmSync(path, { force: true })
      }
    }
  }

  /**
   * Whether the VM can have another device of `sizeBytes` now or, once a kept one made room, soon.
   *
   * @throws MvmError `denied` when it cannot have any so great, `busy`.
   */
  requirePlace({ uuid, name }: Holder, sizeBytes: number): void {
    const buses = this.#plugger.buses(uuid) ?? []
    if (sizeBytes > this.#plugger.maxBytes(uuid)) {
      throw new MvmError("denied", `a device of ${sizeBytes} bytes cannot be plugged into ${name}`, {
        hint: "restart the MVM with a smaller --ring",
      })
    }
    const held = this.all().filter((holding) => {
      const plug = holding.plugOf(uuid)
      return plug && (holding.use === "used" || (holding.use === "retired" && plug.state !== "absent"))
    })
    if (held.length < buses.length) return
    throw new MvmError("busy", `${name} has all ${buses.length} devices of shared memory it can have`, {
      hint: "close some of its channels first",
    })
  }

  /** Places of the VM, and how many of them are free. */
  places(uuid: string): Places {
    const buses = this.#plugger.buses(uuid)
    return { free: this.#freeBuses(uuid).length, all: buses?.length ?? 0, known: buses !== undefined }
  }

  /**
   * Gives a memory to every VM of its pair that lacks it.
   *
   * @throws MvmError `busy`, `qemu`, `timeout`; `aborted` when no channel uses it any more.
   */
  async attach(holding: Holding): Promise<void> {
    requireUsed(holding)
    const absent = holding.ends.flatMap(({ plug }) => (plug?.state === "absent" ? [plug] : []))
    await Promise.all(absent.map((plug) => this.#plugIn(holding, plug)))
  }

  /** As {@link Holding.retire}. */
  async retire(holding: Holding): Promise<void> {
    const letGo = holding.retire()
    this.#forget(holding)
    await letGo
  }

  /** The monitor of a VM answers: what the VM has is compared with what is known. */
  async reconcile(uuid: string): Promise<void> {
    const devices = await this.#plugger.plugged(uuid)
    for (const holding of this.all()) {
      const plug = holding.plugOf(uuid)
      if (plug?.state === "plugged" && !devices.has(holding.deviceId)) plug.gone("unplugged")
      else if (plug && holding.use === "retired") void this.retire(holding)
    }
    for (const id of devices) {
      if (!this.all().some((holding) => holding.deviceId === id)) await this.#plugger.askBack(uuid, id)
    }
  }

  /** A guest let go of a device. */
  unplugged(uuid: string, deviceId: string): void {
    const plug = this.all()
      .find((holding) => holding.deviceId === deviceId)
      ?.plugOf(uuid)
    if (plug) return plug.gone("unplugged")
    this.#plugger.forget(uuid, deviceId).catch(() => {})
  }

  /** The VM is gone, and with it all that was plugged into it. */
  stopped(uuid: string): void {
    for (const holding of this.all()) holding.plugOf(uuid)?.gone("vm ended")
  }

  #forget(holding: Holding): void {
    if (holding.use === "retired" && holding.isAbsent) this.#all.delete(holding.id)
  }

  /** What is kept makes room. */
  async #plugIn(holding: Holding, plug: Plug): Promise<void> {
    for (;;) {
      // It may have been given back while another made room.
      requireUsed(holding)
      const bus = this.#freeBuses(plug.uuid)[0]
      if (bus !== undefined) return plug.plug(bus)
      const kept = this.all()
        .filter((other) => other.use === "idle" && other.plugOf(plug.uuid))
        .sort((a, b) => a.usedMs - b.usedMs)[0]
      if (!kept) throw new MvmError("busy", "no free place for a device of shared memory")
      const letGo = this.retire(kept)
      // The other VM that has it may take its time, or never let go.
      const own = kept.plugOf(plug.uuid)
      await Promise.race([letGo, own?.unplug()])
      if (own && own.state !== "absent") {
        throw new MvmError("busy", "a kept device was to make room, and its guest does not let go of it")
      }
    }
  }

  #freeBuses(uuid: string): string[] {
    const free = [...(this.#plugger.buses(uuid) ?? [])]
    for (const holding of this.all()) {
      const bus = holding.plugOf(uuid)?.bus
      if (bus !== undefined && free.includes(bus)) free.splice(free.indexOf(bus), 1)
    }
    return free
  }
}

/** What is no channel's any more has no name either: QEMU would make another file in its place. */
function requireUsed({ use, id }: Holding): void {
  if (use !== "used") throw new MvmError("aborted", `the memory ${id} was given back meanwhile`)
}
