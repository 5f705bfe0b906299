/**
 * @module mvm/vm/halts
 *
 * Members that are ended at once: their TPM started again where no start of the MVM was, or is about to. A machine that
 * wakes from a suspend has PCRs that are zero and a platform hierarchy that is open, so it must not run another
 * instruction, and nothing that it still says counts.
 */

import { asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { isRunning, signalProcess } from "../../platform/process.ts"
import type { AuditCommitter } from "../state/audit-committer.ts"
import type { VmRecord } from "../state/registry.ts"
import type { RunState } from "./vm-process.ts"

/** Between two tries to end what would not end. */
const RETRY_MS = 2000

export interface HaltParts {
  readonly audit: AuditCommitter
  readonly log: Log
  /** Nothing more that the member says is to count. */
  onHalt(record: VmRecord, reason: string): void
  /** Ends its processes in order, by whoever runs them. */
  end(record: VmRecord, state: RunState): Promise<void>
}

export class Halts {
  readonly #parts: HaltParts
  readonly #reasons = new WeakMap<RunState, string>()

  constructor(parts: HaltParts) {
    this.#parts = parts
  }

  /** Why these processes are ended, where they are. */
  reasonOf(state: RunState): string | undefined {
    return this.#reasons.get(state)
  }

  /** Kills QEMU, then ends the rest. Once is enough for one life of a member. */
  begin(record: VmRecord, state: RunState, reason: string): void {
    if (this.#reasons.has(state)) return
    this.#reasons.set(state, reason)
    // Before anything else is done or asked: libvirt, which would be asked next, takes its time.
    if (state.qemu) signalProcess(state.qemu, "SIGKILL")
    this.#parts.log.error("vm_halt", { vm: record.name, reason })
    void this.#parts.audit.commit("vm_halt", { vm: record.name, reason })
    this.#parts.onHalt(record, reason)
    void this.#end(record, state)
  }

  async #end(record: VmRecord, state: RunState): Promise<void> {
    while (isRunning(state.vtpm) || (state.qemu && isRunning(state.qemu))) {
      try {
        await this.#parts.end(record, state)
      } catch (error) {
        this.#parts.log.error("vm_halt", { vm: record.name, message: asMvmError(error).message })
        await Bun.sleep(RETRY_MS)
      }
    }
  }
}
