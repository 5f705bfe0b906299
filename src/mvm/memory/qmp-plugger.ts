/**
 * @module mvm/memory/qmp-plugger
 *
 * Devices of shared memory for VMs, over the monitors of their QEMUs.
 */

import { MvmError } from "../../lib/errors.ts"
import { needsGrant, READ, shareAlso, WRITE } from "../../platform/acl.ts"
import {
  askUnplug,
  dropMemory,
  hotplugPorts,
  type HotplugPort,
  pluggedDevices,
  plugMemory,
} from "../../platform/hotplug.ts"
import { HOTPLUG_MAX_BYTES, hotplugBuses, type Machine } from "../../platform/qemu-args.ts"
import type { Monitor } from "../../platform/monitor.ts"
import { DEVICE_PREFIX } from "./holding.ts"
import type { PluggedDevice, Plugger } from "./plugger.ts"

export interface PluggableVm {
  readonly machine: Machine
  /** The MVM did not start it: what ports it has is asked. */
  readonly isFollowed: boolean
  /** User of its QEMU, where that is not the MVM's own */
  readonly qemuUid: number | undefined
}

export class QmpPlugger implements Plugger {
  readonly #monitor: (uuid: string) => Monitor | undefined
  readonly #vm: (uuid: string) => PluggableVm | undefined
  /** Of machines that others started, by their monitors */
  readonly #ports = new WeakMap<Monitor, readonly HotplugPort[]>()

  /**
   * @param monitor the monitor of a running VM, if it answers
   * @param vm what can be plugged into, undefined for others
   */
  constructor(monitor: (uuid: string) => Monitor | undefined, vm: (uuid: string) => PluggableVm | undefined) {
    this.#monitor = monitor
    this.#vm = vm
  }

  buses(uuid: string): readonly string[] | undefined {
    const monitor = this.#monitor(uuid)
    const vm = this.#vm(uuid)
    if (!monitor || !vm) return undefined
    return hasOwnPorts(vm) ? this.#portsOf(monitor).map(({ id }) => id) : hotplugBuses(vm.machine)
  }

  maxBytes(uuid: string): number {
    const monitor = this.#monitor(uuid)
    const vm = this.#vm(uuid)
    const rooms = monitor && vm && hasOwnPorts(vm) ? this.#portsOf(monitor) : []
    return Math.min(HOTPLUG_MAX_BYTES, ...rooms.map(({ roomBytes }) => roomBytes))
  }

  async plug(uuid: string, device: PluggedDevice): Promise<void> {
    const qemuUid = this.#vm(uuid)?.qemuUid
    if (needsGrant(qemuUid)) shareAlso(device.path, { uid: qemuUid, permissions: READ | WRITE })
    return plugMemory(this.#must(uuid), device)
  }

  askBack(uuid: string, id: string): Promise<boolean> {
    return askUnplug(this.#must(uuid), id)
  }

  forget(uuid: string, id: string): Promise<void> {
    return dropMemory(this.#must(uuid), id)
  }

  async plugged(uuid: string): Promise<ReadonlySet<string>> {
    const monitor = this.#must(uuid)
    const vm = this.#vm(uuid)
    if (vm && hasOwnPorts(vm)) {
      const ports = await hotplugPorts(monitor, isOurs)
      const roomBytes = Math.max(...ports.map((port) => port.roomBytes))
      // The greatest alone, so that one limit holds for all. Who plugs by hand, or libvirt for somebody, takes the first.
      this.#ports.set(monitor, ports.filter((port) => port.roomBytes === roomBytes).reverse())
    }
    return new Set((await pluggedDevices(monitor)).filter(isOurs))
  }

  #portsOf(monitor: Monitor): readonly HotplugPort[] {
    return this.#ports.get(monitor) ?? []
  }

  #must(uuid: string): Monitor {
    const monitor = this.#monitor(uuid)
    if (!monitor) throw new MvmError("qemu", "the monitor of the VM cannot be reached")
    return monitor
  }
}

/** The one bus of a `pc` has room, whoever started it. */
function hasOwnPorts({ machine, isFollowed }: PluggableVm): boolean {
  return isFollowed && machine !== "pc"
}

function isOurs(deviceId: string): boolean {
  return deviceId.startsWith(DEVICE_PREFIX)
}
