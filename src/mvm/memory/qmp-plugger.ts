/**
 * @module mvm/memory/qmp-plugger
 *
 * Devices of shared memory for VMs whose QEMU the MVM started, over its monitor.
 */

import { MvmError } from "../../lib/errors.ts"
import { askUnplug, dropMemory, pluggedDevices, plugMemory } from "../../platform/hotplug.ts"
import { HOTPLUG_MAX_BYTES, hotplugBuses, type Machine } from "../../platform/qemu-args.ts"
import type { Monitor } from "../../platform/monitor.ts"
import { DEVICE_PREFIX } from "./holding.ts"
import type { PluggedDevice, Plugger } from "./plugger.ts"

export class QmpPlugger implements Plugger {
  readonly #monitor: (uuid: string) => Monitor | undefined
  readonly #machine: (uuid: string) => Machine | undefined

  /**
   * @param monitor the monitor of a running VM, if it answers
   * @param machine of a VM that the MVM starts
   */
  constructor(
    monitor: (uuid: string) => Monitor | undefined,
    machine: (uuid: string) => Machine | undefined,
  ) {
    this.#monitor = monitor
    this.#machine = machine
  }

  buses(uuid: string): readonly string[] {
    const machine = this.#monitor(uuid) && this.#machine(uuid)
    return machine ? hotplugBuses(machine) : []
  }

  maxBytes(): number {
    return HOTPLUG_MAX_BYTES
  }

  plug(uuid: string, device: PluggedDevice): Promise<void> {
    return plugMemory(this.#must(uuid), device)
  }

  askBack(uuid: string, id: string): Promise<boolean> {
    return askUnplug(this.#must(uuid), id)
  }

  forget(uuid: string, id: string): Promise<void> {
    return dropMemory(this.#must(uuid), id)
  }

  async plugged(uuid: string): Promise<ReadonlySet<string>> {
    const devices = await pluggedDevices(this.#must(uuid))
    return new Set(devices.filter((id) => id.startsWith(DEVICE_PREFIX)))
  }

  #must(uuid: string): Monitor {
    const monitor = this.#monitor(uuid)
    if (!monitor) throw new MvmError("qemu", "the monitor of the VM cannot be reached")
    return monitor
  }
}
