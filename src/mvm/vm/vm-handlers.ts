/**
 * @module mvm/vm/vm-handlers
 *
 * What is told of members as they are made, run, end and go.
 */

import type { VmRecord } from "../state/registry.ts"

export interface VmHandlers {
  onCreated(record: VmRecord): void
  /** The member's processes run: keep a link to it. `adopted`: they ran before this MVM did. */
  onStarted(record: VmRecord, resetCount: number, adopted: boolean): void
  /** Its processes are gone. */
  onStopped(record: VmRecord, reason: string): void
  onRemoved(record: VmRecord): void
  /** A process in the VM opened the link's port, or let go of it. */
  onPort(record: VmRecord, isOpen: boolean): void
  /** It is being ended for what it did: nothing that it still says counts. */
  onHalt(record: VmRecord, reason: string): void
}
