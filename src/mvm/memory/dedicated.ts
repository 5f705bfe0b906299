/**
 * @module mvm/memory/dedicated
 *
 * Memory that a channel shares with nobody: a file of its own, which local endpoints map and which is plugged into
 * VMs. What was plugged into a pair stays there for the pair's next channel, for a while: a guest takes a third of a
 * second to find a new device. It goes at once when either end is no longer trusted or the policy changes.
 */

import { lstatSync, readdirSync, rmSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { regionBytes } from "../../ring/layout.ts"
import type { AuditCommitter } from "../state/audit-committer.ts"
import type { VmRecord } from "../state/registry.ts"
import type { ChannelMemory, StoredMemory } from "./channel-memory.ts"
import { FileMemory } from "./file-memory.ts"
import type { Holding } from "./holding.ts"
import { Holdings } from "./holdings.ts"
import { Lease, type LeaseOwner } from "./lease.ts"
import type { Plug, PlugState } from "./plug.ts"
import type { Plugger } from "./plugger.ts"
import { deviceBytes, ringOfDevice, ringThatFits } from "./ring-size.ts"
import { Trials } from "./trials.ts"

/** What a memory's path ends with. */
const MEMORY_ID = /^[0-9a-f]{16}$/

/** A monitor that took no request to let go is tried again after so long. */
const ASK_AGAIN_MS = 30_000

export interface DedicatedOptions {
  /** For the small files that say what is plugged where */
  readonly directory: string
  /** What the paths of memory files begin with, and no others do */
  readonly prefix: string
  /** Of all of it together */
  readonly limitBytes: number
  readonly ringBytes: number
  /** How many memories are kept for each pair, and how long */
  readonly pool: { readonly size: number; readonly idleMs: number }
  /** How long until a monitor is tried again that took no request to let go, if not as long as usual */
  readonly askAgainMs?: number | undefined
  /** How long a guest has for one request to let go, if not as long as usual */
  readonly requestMs?: number | undefined
  /** How long an end of a channel that is over may keep its memory, if not as long as usual */
  readonly endGraceMs?: number | undefined
}

export interface DedicatedParts {
  readonly plugger: Plugger
  readonly audit: AuditCommitter
  readonly log: Log
  /** An end let go of the memory of a channel by itself. */
  onLost(memory: ChannelMemory, reason: string): void
}

export interface DedicatedView {
  readonly limitBytes: number
  readonly usedBytes: number
  /** Memories in use by channels; kept for the next; that a guest does not let go of */
  readonly used: number
  readonly idle: number
  readonly ignored: number
}

export class Dedicated implements LeaseOwner {
  readonly limitBytes: number
  readonly holdings: Holdings
  readonly trials: Trials
  readonly #options: DedicatedOptions
  readonly #parts: DedicatedParts
  readonly #leases = new Map<Holding, Lease>()
  readonly #timers = new Map<Holding, ReturnType<typeof setTimeout>>()
  readonly #files = new Set<FileMemory>()
  #isClosed = false

  constructor(options: DedicatedOptions, parts: DedicatedParts) {
    this.limitBytes = options.limitBytes
    this.#options = options
    this.#parts = parts
    const { directory, prefix, requestMs } = options
    const { plugger, log } = parts
    this.holdings = new Holdings({
      directory,
      prefix,
      plugger,
      log,
      requestMs,
      onPlug: (holding, plug, before) => this.#plugged(holding, plug, before),
    })
    this.trials = new Trials(this.holdings, log)
  }

  get view(): DedicatedView {
    const all = this.holdings.all().filter(({ isTrial }) => !isTrial)
    const count = (use: Holding["use"]): number => all.filter((holding) => holding.use === use).length
    return {
      limitBytes: this.limitBytes,
      usedBytes: this.#usedBytes,
      used: count("used") + this.#files.size,
      idle: count("idle"),
      ignored: all.filter(({ ends }) => ends.some(({ plug }) => plug?.state === "ignored")).length,
    }
  }

  /**
   * Memory for a channel between these two. What must be plugged is plugged by {@link ChannelMemory.attach}.
   *
   * @throws MvmError `denied` where it cannot be done at all, `busy` where there is none left now, `no_space`, `io`.
   */
  reserve(asker: VmRecord, answerer: VmRecord): ChannelMemory {
    const holders = [asker, answerer].map(({ uuid, name, kind }) => ({ uuid, name, isVm: kind !== "local" }))
    const kept = this.holdings.idleOf(holders)[0]
    if (kept) {
      kept.prepare()
      return this.#lease(kept)
    }
    const vms = holders.filter(({ isVm }) => isVm)
    const maxBytes = Math.min(...vms.map(({ uuid }) => this.#parts.plugger.maxBytes(uuid)))
    const wantedBytes = ringOfDevice(this.#options.ringBytes, maxBytes)
    const ringBytes = ringThatFits(wantedBytes, this.limitBytes - this.#usedBytes)
    const sizeBytes = vms.length === 0 ? regionBytes(ringBytes) : deviceBytes(ringBytes)
    if (this.#usedBytes + sizeBytes > this.limitBytes) {
      this.drain()
      throw new MvmError("busy", "no room for another channel in dedicated memory", {
        hint: "close channels, or restart the MVM with a larger --dedicated",
      })
    }
    if (vms.length === 0) {
      return this.#file((onGone) => FileMemory.create(this.#options.prefix, ringBytes, onGone))
    }
    for (const vm of vms) {
      const obstacle = this.trials.obstacle(vm)
      if (obstacle) throw new MvmError("denied", obstacle)
      this.holdings.requirePlace(vm, sizeBytes)
    }
    return this.#lease(this.holdings.create(holders, { sizeBytes, ringBytes }))
  }

  /** The memory of a channel of an earlier life. @throws MvmError `state` when it is not there. */
  reclaim(stored: Exclude<StoredMemory, { kind: "arena" }>): ChannelMemory {
    if (stored.kind === "file") return this.#file((onGone) => FileMemory.reclaim(stored, onGone))
    const holding = this.holdings.get(stored.id)
    if (holding?.use !== "idle") throw new MvmError("state", `memory ${stored.id} is gone`)
    return this.#lease(holding)
  }

  /**
   * After all channels claimed theirs: what is nobody's is kept or taken back, and files that nobody knows are
   * removed.
   */
  settle(isThere: (uuid: string) => boolean): void {
    for (const holding of this.holdings.all()) {
      for (const { uuid, plug } of holding.ends) if (!isThere(uuid)) plug?.gone("vm ended")
      if (holding.use === "idle") this.#keep(holding)
      // What a VM still has of it is asked back when its monitor answers.
      if (holding.use === "retired" && holding.isAbsent) this.#retire(holding)
    }
    this.#sweep()
  }

  /** Resolves when it is known whether memory can be plugged into these members. */
  async known(...uuids: readonly string[]): Promise<void> {
    await Promise.all(uuids.map((uuid) => this.trials.settled(uuid)))
  }

  /** The VM is gone, and with it all that was plugged into it. */
  stopped(uuid: string): void {
    this.trials.stopped(uuid)
    this.holdings.stopped(uuid)
  }

  /** Takes back what no channel uses, and what one uses when it is over: of one member, or all. */
  drain(uuid?: string): void {
    for (const holding of this.holdings.all()) {
      if (uuid !== undefined && !holding.ends.some((end) => end.uuid === uuid)) continue
      if (holding.use === "idle") this.#retire(holding)
      else holding.isLast = true
    }
  }

  attach(holding: Holding): Promise<void> {
    return this.holdings.attach(holding)
  }

  giveBack(holding: Holding, isForGood: boolean): void {
    this.#leases.delete(holding)
    if (this.#isClosed || holding.use === "retired") return
    if (isForGood || holding.isLast) this.#retire(holding)
    else this.#keep(holding)
  }

  /** @param isForGood no member runs that could go on with a channel */
  close(isForGood: boolean): void {
    this.#isClosed = true
    for (const timer of this.#timers.values()) clearTimeout(timer)
    for (const holding of this.holdings.all()) holding.close()
    if (!isForGood) return
    const { directory } = this.#options
    for (const file of readdirSync(directory)) rmSync(join(directory, file), { force: true })
    for (const path of this.#memoryFiles()) rmSync(path, { force: true })
  }

  get #usedBytes(): number {
    const files = [...this.#files].reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    // A guest may write wherever the device has memory.
    return this.holdings.all().reduce((sum, { sizeBytes }) => sum + sizeBytes, files)
  }

  #file(make: (onGone: (memory: FileMemory) => void) => FileMemory): FileMemory {
    const memory = make((gone) => this.#files.delete(gone))
    this.#files.add(memory)
    return memory
  }

  #lease(holding: Holding): ChannelMemory {
    this.#stopTimer(holding)
    holding.use = "used"
    const lease = new Lease(holding, this, this.#options.endGraceMs)
    this.#leases.set(holding, lease)
    return lease
  }

  /** For the next channel of the pair, if that is worth it. */
  #keep(holding: Holding): void {
    const { size, idleMs } = this.#options.pool
    // A trial of an earlier life is over with it.
    if (holding.isTrial || !holding.isWhole || this.holdings.idleOf(holding.ends).length >= size)
      return this.#retire(holding)
    holding.zero()
    holding.use = "idle"
    holding.usedMs = performance.now()
    const timer = setTimeout(() => this.#retire(holding), idleMs)
    timer.unref()
    this.#timers.set(holding, timer)
  }

  #retire(holding: Holding): void {
    this.#stopTimer(holding)
    this.holdings.retire(holding).catch((error: unknown) => {
      this.#parts.log.error("memory_retire", { memory: holding.id, message: asMvmError(error).message })
    })
  }

  #stopTimer(holding: Holding): void {
    clearTimeout(this.#timers.get(holding))
    this.#timers.delete(holding)
  }

  #plugged(holding: Holding, plug: Plug, before: PlugState): void {
    const { audit, log, onLost } = this.#parts
    const name = holding.ends.find(({ uuid }) => uuid === plug.uuid)?.name ?? plug.uuid
    if (plug.state === "ignored") {
      this.trials.ignored({ uuid: plug.uuid, name })
      log.warn("unplug_ignored", { vm: name, memory: holding.id })
      const ends = holding.ends.map((end) => end.name)
      if (!holding.isTrial) void audit.commit("unplug_ignored", { vm: name, memory: holding.id, ends })
    }
    if (plug.state === "plugged" && before === "unplugging") this.#askAgain(holding)
    if (plug.state !== "absent") return
    if (before === "ignored") {
      this.trials.relented(plug.uuid)
      if (!holding.isTrial) void audit.commit("unplug_late", { vm: name, memory: holding.id })
    }
    const lease = this.#leases.get(holding)
    if (before === "plugged" && lease) onLost(lease, `${name} let go of the memory`)
    if (holding.use === "idle") this.#retire(holding)
  }

  #askAgain(holding: Holding): void {
    const again = (): void => {
      if (!this.#isClosed) this.#retire(holding)
    }
    setTimeout(again, this.#options.askAgainMs ?? ASK_AGAIN_MS).unref()
  }

  /** Removes files of memory that nothing here knows. */
  #sweep(): void {
    const known = new Set([...this.#files].map(({ stored }) => stored.path))
    for (const holding of this.holdings.all()) known.add(holding.path)
    for (const path of this.#memoryFiles()) if (!known.has(path)) rmSync(path, { force: true })
  }

  /** Files whose names are of this MVM's making, and that are its own. */
  #memoryFiles(): string[] {
    const { prefix } = this.#options
    const begin = basename(prefix)
    return readdirSync(dirname(prefix))
      .filter((file) => file.startsWith(begin) && MEMORY_ID.test(file.slice(begin.length)))
      .map((file) => join(dirname(prefix), file))
      .filter((path) => lstatSync(path, { throwIfNoEntry: false })?.uid === process.geteuid?.())
  }
}
