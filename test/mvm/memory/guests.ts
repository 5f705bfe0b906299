/**
 * @module test/mvm/memory/guests
 *
 * VMs that memory is plugged into, without the VMs.
 */

import { readdirSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../../src/lib/errors.ts"
import { Log } from "../../../src/lib/log.ts"
import type { ChannelMemory } from "../../../src/mvm/memory/channel-memory.ts"
import { Dedicated, type DedicatedOptions } from "../../../src/mvm/memory/dedicated.ts"
import type { Plugger } from "../../../src/mvm/memory/plugger.ts"
import { AuditCommitter } from "../../../src/mvm/state/audit-committer.ts"
import { openAudit } from "../../../src/mvm/state/audit.ts"
import { openRegistry } from "../../../src/mvm/state/registry.ts"
import { closeLater, sampleVm, scratchFolder, scratchState } from "../scratch-state.ts"

export const RING_BYTES = 65_536

/** VMs whose guests do as they are told, or as the test says. */
export class Guests implements Plugger {
  readonly held = new Map<string, Set<string>>()
  readonly sizes: number[] = []
  /** The greatest device of a VM, if not the usual one */
  readonly rooms = new Map<string, number>()
  slots = 2
  /** Whether they let go when asked */
  isObedient = true
  /** VMs that do not, whatever the others do */
  readonly stubborn = new Set<string>()
  dedicated: Dedicated | undefined

  /** Whether their monitors are there */
  isReachable = true
  /** Whether these take a request to let go */
  isAnswering = true

  buses(): readonly string[] | undefined {
    if (!this.isReachable) return undefined
    return Array.from({ length: this.slots }, (_, slot) => `slot${slot}`)
  }

  maxBytes(uuid: string): number {
    return this.rooms.get(uuid) ?? 1 << 29
  }

  async plug(uuid: string, { id, sizeBytes }: { id: string; sizeBytes: number }): Promise<void> {
    this.sizes.push(sizeBytes)
    const has = this.held.get(uuid) ?? new Set()
    this.held.set(uuid, has.add(id))
  }

  async askBack(uuid: string, id: string): Promise<boolean> {
    if (!this.isAnswering) throw new MvmError("unreachable", "libvirt does not answer")
    if (!this.held.get(uuid)?.has(id)) return false
    if (this.isObedient && !this.stubborn.has(uuid)) setTimeout(() => this.letGo(uuid, id), 1)
    return true
  }

  async forget(): Promise<void> {}

  async plugged(uuid: string): Promise<ReadonlySet<string>> {
    return this.held.get(uuid) ?? new Set()
  }

  letGo(uuid: string, id: string): void {
    this.held.get(uuid)?.delete(id)
    this.dedicated?.holdings.unplugged(uuid, id)
  }

  of(uuid: string): string[] {
    return [...(this.held.get(uuid) ?? [])]
  }
}

export async function setting(change: Partial<DedicatedOptions> = {}) {
  const stateDir = await scratchState()
  const registry = openRegistry(stateDir)
  closeLater(() => registry.close())
  const log = new Log({ level: "error", format: "text" })
  const audit = new AuditCommitter(openAudit(stateDir, registry), log)
  closeLater(() => audit.flush())
  const folder = scratchFolder()
  const guests = new Guests()
  const lost: string[] = []
  const options: DedicatedOptions = {
    directory: join(folder, "memory"),
    prefix: join(folder, "m-"),
    limitBytes: 64 << 20,
    ringBytes: RING_BYTES,
    pool: { size: 1, idleMs: 60_000 },
    ...change,
  }
  const make = (): Dedicated => {
    const parts = {
      plugger: guests,
      audit,
      log,
      onLost: (_: ChannelMemory, reason: string) => lost.push(reason),
    }
    const dedicated = new Dedicated(options, parts)
    guests.dedicated = dedicated
    closeLater(() => dedicated.close(false))
    return dedicated
  }
  const vm = (name: string) => sampleVm(name)
  const files = (): string[] => readdirSync(folder).filter((file) => file.startsWith("m-"))
  return { dedicated: make(), make, guests, lost, vm, folder, files }
}

/** As after a trial that went well. */
export function able(dedicated: Dedicated): void {
  dedicated.trials.obstacle = () => undefined
}
