/**
 * @module mvm/memory/plugger
 *
 * What it takes to give a running VM a device of shared memory and to take it away again.
 */

/** A device as the VM's monitor knows it. */
export interface PluggedDevice {
  /** Unique in the VM; letters, digits and dashes */
  readonly id: string
  /** The file of the memory */
  readonly path: string
  /** Its length: a power of two */
  readonly sizeBytes: number
  /** One of {@link Plugger.buses} */
  readonly bus: string
}

export interface Plugger {
  /**
   * Where devices can be plugged into the VM, a name for each device it can have at once, the best first; undefined
   * where its monitor cannot be reached.
   */
  buses(uuid: string): readonly string[] | undefined
  /** The greatest device there. */
  maxBytes(uuid: string): number
  /** Resolves when the device is there; its guest finds it a little later. @throws MvmError `qemu`, `timeout`. */
  plug(uuid: string, device: PluggedDevice): Promise<void>
  /**
   * Asks the guest to let go of a device. That it did is an event. @returns whether there is such a device
   *
   * @throws MvmError `qemu`, `timeout`.
   */
  askBack(uuid: string, id: string): Promise<boolean>
  /** The device is gone: so shall be the VM's mapping of its memory. @throws MvmError `qemu`, `timeout`. */
  forget(uuid: string, id: string): Promise<void>
  /** Ids of the devices that `plug` gave the VM and that it still has. @throws MvmError `qemu`, `timeout`. */
  plugged(uuid: string): Promise<ReadonlySet<string>>
}
