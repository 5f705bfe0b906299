/**
 * @module mvm/vm/followed/machine
 *
 * A machine that the MVM follows and does not make: what it can ask of whoever runs it.
 */

import type { LaunchFiles } from "../../../platform/launch-digest.ts"
import type { Monitor } from "../../../platform/monitor.ts"
import type { ProcessId } from "../../../platform/process.ts"

export interface Machine {
  /** For the audit. */
  readonly startedBy: "libvirt" | "hand"
  /** The link's port in the monitor's words. */
  readonly linkPortId: string
  /** @throws MvmError `vm_state` naming what is in the way, `usage` where only a person can start it. */
  start(): Promise<void>
  /** Asks the guest to shut down, other than through its monitor. @throws MvmError where there is no such way. */
  shutdown(): Promise<void>
  /** Ends that QEMU; it may take a moment to be gone. @throws MvmError when that cannot be asked. */
  destroy(qemu: ProcessId): Promise<void>
  /**
   * What that QEMU was started with.
   *
   * @throws MvmError `vm_state` naming what is not as the MVM needs it, or that it is another machine's; `io`.
   */
  inspect(qemu: ProcessId): Promise<LaunchFiles>
  /** @param ended fires when it is wanted no more. @throws MvmError `timeout` when that QEMU has none for the MVM. */
  monitor(ended: AbortSignal): Promise<Monitor>
}
