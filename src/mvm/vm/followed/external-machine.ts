/**
 * @module mvm/vm/followed/external-machine
 *
 * A QEMU that a person starts, with the arguments that the MVM gave.
 */

import { MvmError } from "../../../lib/errors.ts"
import type { LaunchFiles } from "../../../platform/launch-digest.ts"
import type { Monitor } from "../../../platform/monitor.ts"
import { commandLineOf, endProcess, type ProcessId } from "../../../platform/process.ts"
import {
  LINK_PORT_ID,
  memberArgs,
  type MemberParts,
  type Machine as Chipset,
} from "../../../platform/qemu-args.ts"
import { launchFilesOfCommandLine, requireArguments } from "../../../platform/qemu-command-line.ts"
import { Qmp } from "../../../platform/qmp.ts"
import type { Machine } from "./machine.ts"

const CONNECT_MS = 10_000

export class ExternalMachine implements Machine {
  readonly startedBy = "hand"
  readonly linkPortId = LINK_PORT_ID
  readonly #vm: string
  readonly #parts: MemberParts
  readonly #machine: Chipset

  constructor(vm: string, parts: MemberParts, machine: Chipset) {
    this.#vm = vm
    this.#parts = parts
    this.#machine = machine
  }

  async start(): Promise<void> {
    throw new MvmError("usage", `${this.#vm} is started by hand`, {
      hint: `mvm vm qemu-args ${this.#vm} prints what its QEMU needs; its vTPM is ready`,
    })
  }

  async shutdown(): Promise<void> {
    throw new MvmError("unreachable", "its monitor does not answer")
  }

  destroy(qemu: ProcessId): Promise<void> {
    return endProcess(qemu)
  }

  async inspect(qemu: ProcessId): Promise<LaunchFiles> {
    const words = commandLineOf(qemu)
    requireArguments(words, memberArgs(this.#parts, this.#machine))
    return launchFilesOfCommandLine(qemu, words, this.#machine)
  }

  monitor(ended: AbortSignal): Promise<Monitor> {
    return Qmp.connect(this.#parts.qmpSocket, { timeoutMs: CONNECT_MS, ended })
  }
}
