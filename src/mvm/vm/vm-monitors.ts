/**
 * @module mvm/vm/vm-monitors
 *
 * The QEMU monitors of running VMs: what happened in them that their guests do not tell.
 */

import { asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { pause } from "../../lib/pause.ts"
import type { Monitor, QmpEvent } from "../../platform/monitor.ts"
import { LINK_PORT_ID } from "../../platform/qemu-args.ts"
import { Qmp } from "../../platform/qmp.ts"

const CONNECT_MS = 10_000
const POWERDOWN_MS = 10_000
const FIRST_RETRY_MS = 500
const MAX_RETRY_MS = 10_000

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
  /** @param ended fires when nobody wants it any more. @throws MvmError when it cannot be reached. */
  connect(ended: AbortSignal): Promise<Monitor>
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
  /** VMs that are watched; fires when this boot of one is over. */
  readonly #boots = new Map<string, AbortController>()
  #isClosed = false
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

  /**
   * Hears events of the VM until it is {@link drop}ped. A monitor that cannot be reached, or closes, is tried again,
   * at growing intervals, as long as this boot lasts. Resolves at its end.
   */
  async watch(vm: { uuid: string; name: string }, source: MonitorSource, events: VmEvents): Promise<void> {
    if (this.#isClosed) return
    this.drop(vm.uuid)
    const ended = new AbortController()
    this.#boots.set(vm.uuid, ended)
    let delayMs = FIRST_RETRY_MS
    let told: string | undefined
    while (!ended.signal.aborted) {
      try {
        const monitor = await source.connect(ended.signal)
        if (ended.signal.aborted) return monitor.close()
        if (told !== undefined) this.#log.info("monitor_again", { vm: vm.name })
        delayMs = FIRST_RETRY_MS
        told = undefined
        await this.#follow(vm, { monitor, portId: source.portId, events })
      } catch (error) {
        if (ended.signal.aborted) return
        const { message } = asMvmError(error)
        // Each try may fail for the same reason: that is said once.
        if (message !== told) this.#log.warn("monitor", { vm: vm.name, message })
        told = message
      }
      await pause(delayMs, ended.signal)
      delayMs = Math.min(delayMs * 2, MAX_RETRY_MS)
    }
  }

  /** Resolves when this monitor closes. */
  async #follow(
    vm: { uuid: string; name: string },
    { monitor, portId, events }: { monitor: Monitor; portId: string; events: VmEvents },
  ): Promise<void> {
    this.#monitors.set(vm.uuid, monitor)
    monitor.onEvent((event) => {
      const { device } = event.data
      if (event.name !== "DEVICE_DELETED") tell(event, portId, events)
      else if (typeof device === "string") this.#devices.onUnplugged(vm.uuid, device)
    })
    try {
      this.#devices.onMonitor(vm.uuid)
      await this.#look(vm, monitor, events)
      await monitor.closed
    } finally {
      monitor.close()
      if (this.#monitors.get(vm.uuid) === monitor) this.#monitors.delete(vm.uuid)
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
    this.#boots.get(uuid)?.abort()
    this.#boots.delete(uuid)
    this.#monitors.get(uuid)?.close()
    this.#monitors.delete(uuid)
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
    this.#isClosed = true
    for (const uuid of [...this.#boots.keys()]) this.drop(uuid)
  }
}

/** The monitor of a QEMU that the MVM starts. */
export function ownMonitor(qmpSocket: string): MonitorSource {
  return {
    portId: LINK_PORT_ID,
    connect: (ended) => Qmp.connect(qmpSocket, { timeoutMs: CONNECT_MS, ended }),
  }
}

function tell({ name, data }: QmpEvent, portId: string, events: VmEvents): void {
  if (SUSPENDS.includes(name)) events.onSuspend(name)
  else if (name === "RESET") events.onReset()
  else if (name === "SHUTDOWN" && RESETS.includes(String(data["reason"]))) events.onGuestReset()
  else if (name === "VSERPORT_CHANGE" && data["id"] === portId) events.onPort(data["open"] === true)
}
