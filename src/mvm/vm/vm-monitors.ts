/**
 * @module mvm/vm/vm-monitors
 *
 * The QEMU monitors of running VMs: what happened in them that their guests do not tell.
 */

import { asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import type { Monitor, QmpEvent } from "../../platform/monitor.ts"
import { LINK_PORT_ID } from "../../platform/qemu-args.ts"
import { Qmp } from "../../platform/qmp.ts"

const CONNECT_MS = 10_000
const POWERDOWN_MS = 10_000

/** Ends that would have been resets, had the machine not been told to end then: by its guest, or by its operator. */
const RESETS = ["guest-reset", "host-qmp-system-reset"]

/** What no VM is to do: to wake up is to start the TPM again. Each comes only where a guest went past the firmware. */
const SUSPENDS = ["SUSPEND", "SUSPEND_DISK", "WAKEUP"]

export interface VmEvents {
  /** The machine was reset, by the guest or otherwise. */
  onReset(): void
  /** A reset was asked for; the machine ends, as it was started not to reboot. */
  onGuestReset(): void
  /** The machine was suspended, or woke up: the event's name, or the state it was found in. */
  onSuspend(what: string): void
  /** A process in the guest opened the link's port, or the one that had it open let go of it. */
  onPort(isOpen: boolean): void
}

/** The way to a VM's monitor. */
export interface MonitorSource {
  /** The link's port in the monitor's words */
  readonly portId: string
  /** @throws MvmError when it cannot be reached. */
  connect(): Promise<Monitor>
}

/** What is said of devices that are plugged into VMs. */
export interface DeviceEvents {
  /** The monitor of the VM answers, or answers again. */
  onMonitor(uuid: string): void
  /** The guest let go of a device. */
  onUnplugged(uuid: string, deviceId: string): void
}

export class VmMonitors {
  readonly #monitors = new Map<string, Monitor>()
  readonly #log: Log
  readonly #devices: DeviceEvents

  constructor(log: Log, devices: DeviceEvents) {
    this.#log = log
    this.#devices = devices
  }

  /** The monitor of a running VM, if it answers. */
  of(uuid: string): Monitor | undefined {
    return this.#monitors.get(uuid)
  }

  /** Hears events of the VM until its monitor closes. */
  async watch(vm: { uuid: string; name: string }, source: MonitorSource, events: VmEvents): Promise<void> {
    try {
      const monitor = await source.connect()
      this.#monitors.set(vm.uuid, monitor)
      monitor.onEvent((event) => {
        const { device } = event.data
        if (event.name !== "DEVICE_DELETED") tell(event, source.portId, events)
        else if (typeof device === "string") this.#devices.onUnplugged(vm.uuid, device)
      })
      this.#devices.onMonitor(vm.uuid)
      await this.#look(vm, monitor, events)
      await monitor.closed
      if (this.#monitors.get(vm.uuid) === monitor) this.#monitors.delete(vm.uuid)
    } catch (error) {
      this.#log.warn("monitor", { vm: vm.name, message: asMvmError(error).message })
    }
  }

  /** What happened before anybody listened. */
  async #look(vm: { name: string }, monitor: Monitor, events: VmEvents): Promise<void> {
    try {
      const { status } = (await monitor.execute("query-status")) as { status?: unknown }
      if (status === "suspended") events.onSuspend("suspended")
    } catch (error) {
      this.#log.warn("monitor_status", { vm: vm.name, message: asMvmError(error).message })
    }
  }

  /** The VM has ended. */
  drop(uuid: string): void {
    this.#monitors.get(uuid)?.close()
  }

  /** Presses the power button. @returns false when no monitor answers */
  async powerdown(uuid: string): Promise<boolean> {
    const monitor = this.#monitors.get(uuid)
    if (!monitor) return false
    try {
      await monitor.execute("system_powerdown", undefined, POWERDOWN_MS)
      return true
    } catch {
      return false
    }
  }

  close(): void {
    for (const monitor of this.#monitors.values()) monitor.close()
  }
}

/** The monitor of a QEMU that the MVM starts. */
export function ownMonitor(qmpSocket: string): MonitorSource {
  return { portId: LINK_PORT_ID, connect: () => Qmp.connect(qmpSocket, { timeoutMs: CONNECT_MS }) }
}

function tell({ name, data }: QmpEvent, portId: string, events: VmEvents): void {
  if (SUSPENDS.includes(name)) events.onSuspend(name)
  else if (name === "RESET") events.onReset()
  else if (name === "SHUTDOWN" && RESETS.includes(String(data["reason"]))) events.onGuestReset()
  else if (name === "VSERPORT_CHANGE" && data["id"] === portId) events.onPort(data["open"] === true)
}
