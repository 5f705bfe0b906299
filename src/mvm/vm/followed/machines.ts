/**
 * @module mvm/vm/followed/machines
 *
 * The machines that the MVM follows, by what their records say of them.
 */

import { basename } from "node:path"
import { MvmError } from "../../../lib/errors.ts"
import type { Log } from "../../../lib/log.ts"
import { VirshEvents } from "../../../platform/libvirt/events.ts"
import type { MvmParts } from "../../../platform/libvirt/elements.ts"
import { Virsh } from "../../../platform/libvirt/virsh.ts"
import type { MemberParts } from "../../../platform/qemu-args.ts"
import type { Arena } from "../../channels/arena.ts"
import type { Registry, VmRecord } from "../../state/registry.ts"
import type { StateDir } from "../../state/state-dir.ts"
import { vmPaths, type VmPaths } from "../vm-process.ts"
import { shareState } from "./access.ts"
import { ExternalMachine } from "./external-machine.ts"
import { LibvirtMachine } from "./libvirt-machine.ts"
import type { Machine } from "./machine.ts"

interface Connection {
  readonly virsh: Virsh
  readonly events: VirshEvents
}

export interface MachineParts {
  readonly stateDir: StateDir
  readonly registry: Registry
  readonly arena: Arena
  readonly log: Log
}

export class Machines {
  readonly #parts: MachineParts
  readonly #connections = new Map<string, Connection>()

  constructor(parts: MachineParts) {
    this.#parts = parts
  }

  of(record: VmRecord): Machine {
    if (record.kind === "external") {
      return new ExternalMachine(record.name, this.memberParts(record), record.config.machine)
    }
    const { libvirt } = record.config
    if (!libvirt) throw new MvmError("internal", `${record.name}: no machine is followed for it`)
    return new LibvirtMachine({
      vm: record.name,
      domain: libvirt.domain,
      ...this.#connection(libvirt.uri),
      parts: this.libvirtParts(record),
    })
  }

  memberParts(record: Pick<VmRecord, "uuid" | "name" | "config">): MemberParts {
    const { link, qmp, vtpmControl } = this.#paths(record)
    return {
      arena: this.#arenaOf(record),
      vtpmControlSocket: vtpmControl,
      linkSocket: link,
      qmpSocket: qmp,
    }
  }

  libvirtParts(record: Pick<VmRecord, "uuid" | "name" | "config">): MvmParts {
    const { link, vtpmControl } = this.#paths(record)
    const arena = this.#arenaOf(record)
    return {
      arena: arena && { name: basename(arena.path), sizeBytes: arena.sizeBytes },
      vtpmSocket: vtpmControl,
      linkSocket: link,
    }
  }

  /** Lets the users of all these machines' QEMUs at what they need, and nobody else. */
  share(): void {
    const { registry } = this.#parts
    shareState(this.#parts, registry.listVms(), (record) => this.#paths(record))
  }

  close(): void {
    for (const { events } of this.#connections.values()) events.close()
  }

  #arenaOf({ config }: Pick<VmRecord, "config">): MemberParts["arena"] {
    const { path, sizeBytes } = this.#parts.arena
    return config.memoryDevice === "none" ? undefined : { path, sizeBytes }
  }

  #connection(uri: string): Connection {
    let made = this.#connections.get(uri)
    if (!made) {
      const virsh = new Virsh(uri)
      made = { virsh, events: new VirshEvents(virsh, this.#parts.log) }
      this.#connections.set(uri, made)
    }
    return made
  }

  #paths({ uuid, name }: Pick<VmRecord, "uuid" | "name">): VmPaths {
    return vmPaths(this.#parts.stateDir.path, uuid, name)
  }
}
