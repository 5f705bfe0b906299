/**
 * @module mvm/vm/followed/libvirt-machine
 *
 * A libvirt domain as a machine that the MVM follows.
 */

import { MvmError } from "../../../lib/errors.ts"
import { shellWord } from "../../../lib/shell.ts"
import type { LaunchFiles } from "../../../platform/launch-digest.ts"
import { Domain } from "../../../platform/libvirt/domain.ts"
import { ALIASES, missingElements, type MvmParts } from "../../../platform/libvirt/elements.ts"
import type { VirshEvents } from "../../../platform/libvirt/events.ts"
import { domainInfo, requireNoManagedSave } from "../../../platform/libvirt/info.ts"
import { LibvirtMonitor } from "../../../platform/libvirt/monitor.ts"
import { DEFAULT_URI, type Virsh } from "../../../platform/libvirt/virsh.ts"
import type { Monitor } from "../../../platform/monitor.ts"
import { commandLineOf, type ProcessId } from "../../../platform/process.ts"
import { judgeLibvirtCommandLine } from "../../../platform/qemu-command-line.ts"
import type { Machine } from "./machine.ts"

const PASSING = new Set(["in shutdown", "crashed", "dying"])
const MOST_LOOKS = 20
const LOOK_MS = 250
/** For libvirt to take the request, not for the guest to end. */
const SHUTDOWN_MS = 10_000

export interface LibvirtMachineParts {
  /** The member's name. */
  readonly vm: string
  /** The domain's UUID. */
  readonly domain: string
  readonly virsh: Virsh
  readonly events: VirshEvents
  readonly parts: MvmParts
}

export class LibvirtMachine implements Machine {
  readonly startedBy = "libvirt"
  readonly linkPortId = ALIASES.link
  readonly #parts: LibvirtMachineParts

  constructor(parts: LibvirtMachineParts) {
    this.#parts = parts
  }

  async start(): Promise<void> {
    const { virsh, domain, vm } = this.#parts
    const state = await this.#settledState()
    if (state !== "shut off") {
      throw new MvmError("vm_state", `the domain of ${vm} is ${state}, and its QEMU has no link to the MVM`, {
        hint: `${virsh.command("destroy", domain)}, then again`,
      })
    }
    const defined = Domain.parse(await virsh.run(["dumpxml", "--inactive", domain]))
    requireNoManagedSave(virsh, defined.name, await domainInfo(virsh, domain))
    this.#requireElements(defined)
    await virsh.run(["start", domain])
  }

  async shutdown(): Promise<void> {
    await this.#parts.virsh.run(["shutdown", this.#parts.domain], SHUTDOWN_MS)
  }

  async destroy(): Promise<void> {
    await this.#parts.virsh.run(["destroy", this.#parts.domain])
  }

  async inspect(qemu: ProcessId): Promise<LaunchFiles> {
    const { virsh, domain, vm } = this.#parts
    const words = commandLineOf(qemu)
    // A copy of the domain would have the same sockets in its XML.
    if (!words.some((word, index) => word === "-uuid" && words[index + 1] === domain)) {
      throw new MvmError("vm_state", `process ${qemu.pid} at the link of ${vm} is not its domain's QEMU`)
    }
    const running = Domain.parse(await virsh.run(["dumpxml", domain]))
    this.#requireElements(running)
    const files = running.launchFiles()
    judgeLibvirtCommandLine(words, files)
    return files
  }

  async monitor(ended: AbortSignal): Promise<Monitor> {
    const { virsh, events, domain } = this.#parts
    events.open()
    await events.listening(ended)
    const name = (await virsh.run(["domname", domain])).trim()
    return new LibvirtMonitor(virsh, events, { uuid: domain, name })
  }

  /** A domain whose QEMU has just ended is not shut off at once. */
  async #settledState(): Promise<string> {
    const { virsh, domain } = this.#parts
    for (let look = 0; ; look++) {
      const state = (await virsh.run(["domstate", domain])).trim()
      if (!PASSING.has(state) || look === MOST_LOOKS) return state
      await Bun.sleep(LOOK_MS)
    }
  }

  #requireElements(domain: Domain): void {
    const { parts, vm, virsh } = this.#parts
    const missing = missingElements(domain, parts)
    if (missing.length === 0) return
    const where = virsh.uri === DEFAULT_URI ? "" : ` --connect ${shellWord(virsh.uri)}`
    const again = `mvm vm create ${vm} --libvirt ${shellWord(domain.name)}${where} --apply`
    throw new MvmError(
      "vm_state",
      `the domain ${domain.name} lacks ${missing.join(", ")} as the MVM needs it`,
      { hint: `shut it down, then ${again}; mvm vm libvirt-xml ${vm} shows the elements` },
    )
  }
}
