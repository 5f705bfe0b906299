/**
 * @module mvm/memory/trials
 *
 * Whether memory can be plugged into a VM: tried with a small one, once a boot, when its agent is linked and its
 * monitor answers. A guest without hot-plug would else fail every channel that could have had the arena.
 *
 * ```
 *              linked, monitor             agent maps it, guest lets go of it
 *   untried ──────────────────► trying ─────────────────────────────────────► able
 *      ▲                           │ it does not                                │
 *      │                           ▼                                            │
 *      ├─────── VM ended ─────── unable ◄──── a guest keeps a device ───────────┤
 *      └─────── VM ended ───────────────────────────────────────────────────────┘
 * ```
 */

import { asMvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { MIN_RING_BYTES } from "../../ring/layout.ts"
import type { Member } from "../member.ts"
import type { Holder, Holding } from "./holding.ts"
import type { Holdings } from "./holdings.ts"

const TRIAL_BYTES = 1 << 20

/** More than the agent's own limit, so that its reason arrives. */
const ANSWER_MS = 15_000

type Trial =
  | { readonly state: "trying"; readonly done: Promise<void> }
  | { readonly state: "able" }
  | { readonly state: "unable"; readonly reason: string; readonly isFinal: boolean }

export class Trials {
  readonly #holdings: Holdings
  readonly #log: Log
  readonly #trials = new Map<string, Trial>()

  constructor(holdings: Holdings, log: Log) {
    this.#holdings = holdings
    this.#log = log
  }

  /** What stands against plugging memory into the VM. */
  obstacle({ uuid, name }: Holder): string | undefined {
    const places = this.#holdings.places(uuid)
    if (!places.known) return `the monitor of ${name} cannot be reached`
    if (places.all === 0) return `the machine of ${name} has no hot-plug places for memory`
    const trial = this.#trials.get(uuid)
    if (trial?.state === "able") return undefined
    return trial?.state === "unable" ? trial.reason : `it was not yet tried to plug memory into ${name}`
  }

  /** Resolves when it is known, if it is being tried. */
  async settled(uuid: string): Promise<void> {
    const trial = this.#trials.get(uuid)
    if (trial?.state === "trying") await trial.done
  }

  /** Its agent is linked; or its monitor answers, and its agent was linked before. */
  begin(member: Member): void {
    const { uuid, name, kind } = member.record
    const before = this.#trials.get(uuid)
    if (before && (before.state !== "unable" || before.isFinal)) return
    if (kind === "local" || !member.session?.isReady || this.#holdings.places(uuid).all === 0) return
    if (!member.session.canMap) return this.#conclude(uuid, `${name} cannot map memory`)
    const isPlugged = (holding: Holding): boolean =>
      holding.use !== "retired" && holding.plugOf(uuid)?.state === "plugged"
    if (this.#holdings.all().some(isPlugged)) return void this.#trials.set(uuid, { state: "able" })
    const trial: Trial = { state: "trying", done: this.#try(member, () => this.#trials.get(uuid) === trial) }
    this.#trials.set(uuid, trial)
    this.#log.debug("memory_trial", { vm: name })
  }

  /** Its guest kept a device that was asked back. */
  ignored({ uuid, name }: Pick<Holder, "uuid" | "name">): void {
    if (this.#trials.get(uuid)?.state === "unable") return
    this.#conclude(uuid, `${name} does not let go of plugged memory`, true)
  }

  /** It let go of it after all: it was slow. */
  relented(uuid: string): void {
    const trial = this.#trials.get(uuid)
    if (trial?.state === "unable" && trial.isFinal) this.#trials.set(uuid, { state: "able" })
  }

  /** Its next boot may be of another kernel. */
  stopped(uuid: string): void {
    this.#trials.delete(uuid)
  }

  #conclude(uuid: string, reason: string, isFinal = false): void {
    this.#trials.set(uuid, { state: "unable", reason, isFinal })
  }

  async #try(member: Member, isCurrent: () => boolean): Promise<void> {
    const { uuid, name } = member.record
    let holding: Holding | undefined
    try {
      const size = { sizeBytes: TRIAL_BYTES, ringBytes: MIN_RING_BYTES, isTrial: true }
      holding = this.#holdings.create([{ uuid, name, isVm: true }], size)
      await this.#holdings.attach(holding)
      const { tag, lengthBytes } = holding
      await member.link.request("MEMORY", { tag, lengthBytes }, "DONE", { timeoutMs: ANSWER_MS })
      await this.#holdings.retire(holding)
      if (isCurrent()) this.#trials.set(uuid, { state: "able" })
    } catch (error) {
      const { message } = asMvmError(error)
      this.#log.warn("memory_trial_failed", { vm: name, message })
      const why = message.includes("Permission denied")
        ? `the host does not let the QEMU of ${name} open memory that is plugged in; mvm doctor may know why`
        : `memory that is plugged into ${name} does not reach it`
      if (isCurrent()) this.#conclude(uuid, why)
      // A guest that did not find it lets nobody wait for its letting go.
      if (holding) this.#holdings.retire(holding).catch(() => {})
    }
  }
}
