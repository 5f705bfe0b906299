/**
 * @module platform/libvirt/monitor
 *
 * The QEMU monitor of a libvirt domain. libvirt holds the monitor's socket itself and passes commands and events on; it
 * is closed when events may be missed.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Monitor, QmpEvent } from "../monitor.ts"
import type { VirshEvents } from "./events.ts"
import type { Virsh } from "./virsh.ts"

export class LibvirtMonitor implements Monitor {
  readonly closed: Promise<void>
  readonly #virsh: Virsh
  readonly #events: VirshEvents
  readonly #domain: { readonly uuid: string; readonly name: string }
  readonly #gone = Promise.withResolvers<void>()
  readonly #undo = new Set<() => void>()
  #isClosed = false

  /** @param domain its name as of this start: a running domain cannot be renamed */
  constructor(virsh: Virsh, events: VirshEvents, domain: { readonly uuid: string; readonly name: string }) {
    this.#virsh = virsh
    this.#events = events
    this.#domain = domain
    this.closed = this.#gone.promise
    // Whoever listens again looks at what is there now.
    this.#undo.add(events.onLost(() => this.close()))
  }

  async execute(command: string, args?: Record<string, unknown>, timeoutMs?: number): Promise<unknown> {
    if (this.#isClosed) throw new MvmError("qemu", `${command}: the monitor was closed`)
    const request = JSON.stringify({ execute: command, ...(args && { arguments: args }) })
    const words = ["qemu-monitor-command", this.#domain.uuid, request]
    return monitorReply(command, await this.#virsh.run(words, timeoutMs))
  }

  onEvent(handler: (event: QmpEvent) => void): () => void {
    const undo = this.#events.onEvent(this.#domain.name, handler)
    this.#undo.add(undo)
    return () => {
      this.#undo.delete(undo)
      undo()
    }
  }

  close(): void {
    this.#isClosed = true
    for (const undo of this.#undo) undo()
    this.#undo.clear()
    this.#gone.resolve()
  }
}

/** The `return` value of QEMU's answer. @throws MvmError `qemu` for its error, or an answer that is none. */
export function monitorReply(command: string, text: string): unknown {
  let reply: { return?: unknown; error?: { class?: unknown; desc?: unknown } }
  try {
    reply = JSON.parse(text) as typeof reply
  } catch (cause) {
    throw new MvmError("qemu", `${command}: libvirt's answer is no JSON`, { cause })
  }
  if (!reply.error) return reply.return
  const said = `${String(reply.error.class)}: ${String(reply.error.desc)}`.replaceAll(/\s+/g, " ")
  throw new MvmError("qemu", `${command}: ${said.trim()}`)
}
