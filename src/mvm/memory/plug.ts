/**
 * @module mvm/memory/plug
 *
 * One memory as one VM has it.
 *
 * ```
 *            plug              done
 *   absent ───────► plugging ───────► plugged
 *     ▲ ▲              │ failed        ▲ │ unplug
 *     │ └──────────────┘    undelivered│ ▼
 *     │                    gone      unplugging ◄─┐
 *     ├──────────────────────────────────┤        │ unplug
 *     │                    gone          ▼ limit  │
 *     └─────────────────────────────── ignored ───┘
 * ```
 *
 * `gone` is QEMU's word that the guest let go, by itself or asked, or the end of the VM; it counts in any state. A guest
 * that ignores the request keeps what it maps, and nothing else: the memory is never given to anybody again. A guest
 * that the request never reached, because the monitor did not take it, ignored nothing: it is asked again later.
 */

import { MvmError, asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import type { PluggedDevice, Plugger } from "./plugger.ts"

export const PLUG_STATES = ["absent", "plugging", "plugged", "unplugging", "ignored"] as const
export type PlugState = (typeof PLUG_STATES)[number]
export type PlugEvent = "plug" | "done" | "failed" | "unplug" | "undelivered" | "limit" | "gone"

const NEXT: Record<PlugState, Partial<Record<PlugEvent, PlugState>>> = {
  absent: { plug: "plugging" },
  plugging: { done: "plugged", failed: "absent" },
  plugged: { unplug: "unplugging" },
  unplugging: { limit: "ignored", undelivered: "plugged" },
  ignored: { unplug: "unplugging" },
}

/** The state after `event`, or undefined where it has no place. */
export function step(state: PlugState, event: PlugEvent): PlugState | undefined {
  return event === "gone" ? "absent" : NEXT[state][event]
}

/** A guest is asked so often, and has so long each time. So often does the monitor get to fail, too. */
const REQUESTS = 3
const REQUEST_MS = 5000

export interface PlugParts {
  readonly vm: { readonly uuid: string; readonly name: string }
  readonly device: Omit<PluggedDevice, "bus">
  readonly plugger: Plugger
  readonly log: Log
  /** How long a guest has for one request, if not as long as usual */
  readonly requestMs?: number | undefined
  /** After each change of state. What it throws of `plugging` keeps the device from being plugged. */
  onChange(plug: Plug, before: PlugState): void
}

export class Plug {
  readonly #parts: PlugParts
  #state: PlugState
  /** Where it is plugged, or will be; undefined while it is absent */
  bus: string | undefined
  /** Resolves when nothing is under way. */
  #settled: Promise<void> = Promise.resolve()
  #gone = Promise.withResolvers<void>()

  /** @param bus where an earlier life of the MVM plugged it */
  constructor(parts: PlugParts, bus?: string) {
    this.#parts = parts
    this.#state = bus === undefined ? "absent" : "plugged"
    this.bus = bus
  }

  get uuid(): string {
    return this.#parts.vm.uuid
  }

  get state(): PlugState {
    return this.#state
  }

  /** @throws MvmError `qemu`, `timeout`, `io`: it is absent then. */
  plug(bus: string): Promise<void> {
    this.#begin(bus)
    const { plugger, device } = this.#parts
    const done = plugger.plug(this.uuid, { ...device, bus }).then(
      () => {
        if (this.#state !== "plugging") throw new MvmError("aborted", "the device is gone already")
        this.#step("done")
      },
      (error: unknown) => {
        if (this.#state === "plugging") this.#step("failed")
        throw error
      },
    )
    this.#settled = done.catch(() => {})
    return done
  }

  /** Resolves when the guest let go, has ignored every request, or cannot be asked now. */
  async unplug(): Promise<void> {
    await this.#settled
    // Somebody else asked already.
    if (this.#state === "unplugging") return this.#settled
    if (step(this.#state, "unplug") === undefined) return
    this.#step("unplug")
    this.#settled = this.#askBack()
    await this.#settled
  }

  /** The guest let go, or the VM is gone. */
  gone(how: "unplugged" | "vm ended"): void {
    if (this.#state !== "absent") this.#step("gone")
    if (how === "vm ended") return
    const { plugger, device, log, vm } = this.#parts
    plugger.forget(this.uuid, device.id).catch((error: unknown) => {
      log.warn("memory_backend", { vm: vm.name, message: asMvmError(error).message })
    })
  }

  async #askBack(): Promise<void> {
    const { plugger, device, log, vm, requestMs = REQUEST_MS } = this.#parts
    let [delivered, failed] = [0, 0]
    while (delivered < REQUESTS && failed < REQUESTS && this.#state === "unplugging") {
      try {
        if (!(await plugger.askBack(this.uuid, device.id))) return this.gone("unplugged")
        delivered += 1
      } catch (error) {
        failed += 1
        log.warn("unplug", { vm: vm.name, message: asMvmError(error).message })
      }
      await Promise.race([this.#gone.promise, quietDelay(requestMs)])
    }
    if (this.#state === "unplugging") this.#step(delivered === REQUESTS ? "limit" : "undelivered")
  }

  /** What cannot be written down is not plugged: the next life of the MVM would not know of it. */
  #begin(bus: string): void {
    if (step(this.#state, "plug") === undefined) return this.#step("plug")
    this.bus = bus
    try {
      this.#step("plug")
    } catch (error) {
      this.#state = "absent"
      this.bus = undefined
      throw error
    }
  }

  #step(event: PlugEvent): void {
    const next = step(this.#state, event)
    if (next === undefined) throw new MvmError("internal", `plug: ${event} while ${this.#state}`)
    const before = this.#state
    this.#state = next
    if (next === "absent") {
      this.bus = undefined
      this.#gone.resolve()
      this.#gone = Promise.withResolvers()
    }
    this.#parts.onChange(this, before)
  }
}

/** Does not keep the process. */
function quietDelay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref())
}
