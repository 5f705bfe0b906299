/**
 * @module test/faults/rig
 *
 * One MVM with two local endpoints in which a transfer is made, a fault falls into it, and everything that must
 * still be true is looked at: no wrong byte came out, nothing was reported that did not happen, nothing is left,
 * the audit chain holds and the next transfer works.
 */

import { readFileSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { identifyProcess } from "../../src/platform/process.ts"
import { TestHost, type Running } from "../integration/host.ts"
import { LinkProxy } from "../integration/link-proxy.ts"
import { descriptorsOf, processesOf } from "../integration/processes.ts"
import type { Fault, FaultPoint, Moment, Transfer, Victim } from "./point.ts"

const FREEZE_MS = 1500
/** A link that lost a frame finds out with the next one, and begins a new epoch under whatever runs then. */
const DISTURBED_TRIES = 3
/** Files a process may have open beyond what it had: caches fill, sockets of the moment come and go. */
const DESCRIPTOR_SLACK = 16
/** Time for a command in a channel to hear that the other end is gone. */
const WAITING_MS = 400
const SLOW_PIECE = 100_000

/** Statuses a command may end with whatever dies beside it: done, unreachable, interrupted by us, killed by us. */
const HONEST_STATUSES = new Set([0, 3, 130, 137])
/** Without its vTPM a command's own machine has failed it. */
const WITHOUT_VTPM_STATUSES = new Set([...HONEST_STATUSES, 1])
/** A cut or lost frame may also be a broken protocol to somebody. */
const DISTURBED_STATUSES = new Set([...HONEST_STATUSES, 4, 5, 7])

export interface Injected {
  /** False: the moment did not come in this transfer. */
  readonly reached: boolean
  readonly sender: number
  readonly receiver: number
  readonly deliveredBytes: number
}

interface Ends {
  sender?: Running
  receiver?: Running
}

export class Rig {
  readonly host: TestHost
  readonly #proxy: LinkProxy
  #round = 0
  #baseline: { descriptors: Record<string, number>; processes: number; sockets: string[] } | undefined

  private constructor(host: TestHost, proxy: LinkProxy) {
    this.host = host
    this.#proxy = proxy
  }

  static async start(): Promise<Rig> {
    let host: TestHost | undefined
    const proxy = new LinkProxy(() => host!.state)
    try {
      host = await TestHost.start({ guestState: proxy.guestState, onMember: proxy.add })
      const rig = new Rig(host, proxy)
      for (const name of ["a", "b"]) await host.member(name)
      await rig.#transferWorks("at the start")
      rig.#baseline = rig.#resources()
      return rig
    } catch (error) {
      await host?.end().catch(() => {})
      proxy.close()
      throw error
    }
  }

  async end(): Promise<void> {
    try {
      await this.host.end()
    } finally {
      this.#proxy.close()
    }
  }

  /** @throws Error that says what was not as promised. */
  async inject(point: FaultPoint): Promise<Injected> {
    this.#round += 1
    const ends: Ends = {}
    const reached = this.#arm(point.moment, point.fault, ends)
    const content = contentOf(this.#round, point.transfer.bytes)
    const { delivered, said, ...outcome } = await this.#transfer(point.transfer, content, ends)
    this.#proxy.watcher = () => true
    const happened = reached()
    this.#judge({ ...outcome, delivered, said }, content, point.fault)
    await happened.recovered
    await this.#recover()
    await this.#transferWorks("after it", point.fault.kind === "kill" ? 1 : DISTURBED_TRIES)
    await this.#nothingIsLeft()
    return { ...outcome, reached: happened.reached }
  }

  /** Has `fault` fall at `moment`. The result tells, when the transfer is over, whether it did. */
  #arm(moment: Moment, fault: Fault, ends: Ends): () => { reached: boolean; recovered: Promise<void> } {
    let recovered: Promise<void> | undefined
    const strike = (): void => {
      if (!this.#isThere(fault, ends)) return
      recovered ??= this.#strike(fault, ends)
      recovered.catch(() => {})
    }
    let timer: ReturnType<typeof setTimeout> | undefined
    if ("afterMs" in moment) timer = setTimeout(() => strike(), moment.afterMs)
    else {
      this.#proxy.watcher = (passing) => {
        const isIt =
          passing.member === moment.member &&
          passing.direction === moment.direction &&
          passing.name === moment.message
        if (!isIt || recovered) return true
        if (fault.kind === "drop" || fault.kind === "repeat") {
          recovered = Promise.resolve()
          if (fault.kind === "repeat") passing.inject(passing.frame)
          return fault.kind !== "drop"
        }
        if (moment.phase === "before") strike()
        else setTimeout(() => strike(), this.#round % 4)
        return true
      }
    }
    return () => {
      clearTimeout(timer)
      return { reached: recovered !== undefined, recovered: recovered ?? Promise.resolve() }
    }
  }

  /** A command may not have begun, or be over. */
  #isThere(fault: Fault, ends: Ends): boolean {
    if (!("victim" in fault)) return true
    const pid = this.#pidOf(fault.victim, ends)
    return pid !== undefined && identifyProcess(pid) !== undefined
  }

  /** Resolves when what was ended, and is not a command, runs again. */
  async #strike(fault: Fault, ends: Ends): Promise<void> {
    switch (fault.kind) {
      case "cut":
        return this.#proxy.cut(fault.member)
      case "freeze": {
        const pid = this.#pidOf(fault.victim, ends)
        if (pid === undefined) return
        signal(pid, "SIGSTOP")
        await Bun.sleep(FREEZE_MS)
        return signal(pid, "SIGCONT")
      }
      case "kill":
        return this.#kill(fault.victim, ends)
      default:
    }
  }

  async #kill(victim: Victim, ends: Ends): Promise<void> {
    const { host } = this
    switch (victim) {
      case "mvm":
        await host.stopServe("SIGKILL")
        await host.serve()
        return
      case "agent a":
      case "agent b": {
        const agent = host.agentOf(nameOf(victim))
        agent.kill("SIGKILL")
        await agent.over()
        await host.agent(nameOf(victim))
        return
      }
      case "vtpm a":
      case "vtpm b": {
        const member = nameOf(victim)
        const old = vtpmPid(host, member)
        if (old !== undefined) signal(old, "SIGKILL")
        // The agent's next life begins with another one.
        return host.until(`another vTPM of ${member}`, () => (vtpmPid(host, member) ?? old) !== old)
      }
      default:
        return signal(this.#pidOf(victim, ends)!, "SIGKILL")
    }
  }

  #pidOf(victim: Victim, { sender, receiver }: Ends): number | undefined {
    switch (victim) {
      case "mvm":
        return this.host.serving.pid
      case "sender":
        return sender?.pid
      case "receiver":
        return receiver?.pid
      case "agent a":
      case "agent b":
        return this.host.agentOf(nameOf(victim)).pid
      default:
        return vtpmPid(this.host, nameOf(victim))
    }
  }

  async #transfer(
    { mode }: Transfer,
    content: Uint8Array,
    ends: Ends,
  ): Promise<{
    sender: number
    receiver: number
    deliveredBytes: number
    delivered: Uint8Array
    channel: string
    said: string
  }> {
    const { host } = this
    const out = join(host.folder, "delivered")
    const words =
      mode === "verify-first" ? ["--verify-first"] : mode === "requested" ? ["a", "--request"] : []
    if (mode === "requested") {
      ends.sender = host.send("a", "b", content, "--offer", "--json")
      await Promise.race([ends.sender.says("offering"), ends.sender.process.exited]).catch(() => {})
      ends.receiver = host.spawn(["guest", "recv", "--local", "b", ...words], { stdout: out })
    } else {
      ends.receiver = host.spawn(["guest", "recv", "--local", "b", ...words], { stdout: out })
      await Promise.race([ends.receiver.says("waiting for"), ends.receiver.process.exited]).catch(() => {})
      const more = mode === "sha256" ? ["--digest", "sha256"] : []
      const stdin = mode === "slow" ? "pipe" : content
      ends.sender = host.send("a", "b", stdin, "--wait", "5s", "--json", ...more)
      if (mode === "slow") void feed(ends.sender, content)
    }
    const [first, second] = mode === "requested" ? [ends.receiver, ends.sender] : [ends.sender, ends.receiver]
    const firstStatus = await first.over()
    const secondStatus = await this.#overUnlessWaiting(second, mode === "requested" ? "a" : "b")
    const [sender, receiver] =
      mode === "requested" ? [secondStatus, firstStatus] : [firstStatus, secondStatus]
    const delivered = new Uint8Array(readFileSync(out))
    const channel = /"channel":"([0-9a-f]+)"/.exec(ends.sender.stderr())?.[1] ?? ""
    const said = `sender: ${ends.sender.stderr().trim()}; receiver: ${ends.receiver.stderr().trim()}`
    return { sender, receiver, deliveredBytes: delivered.length, delivered, channel, said }
  }

  /** One that still waits for a first word of the other may do so for ever; one in a channel may not. */
  async #overUnlessWaiting(running: Running, member: string): Promise<number> {
    const deadline = performance.now() + WAITING_MS
    while (running.process.exitCode === null && running.process.signalCode === null) {
      if (performance.now() > deadline && (await this.#waits(member))) {
        running.kill("SIGINT")
        break
      }
      if (performance.now() > deadline + 15_000) break
      await Bun.sleep(20)
    }
    return running.over()
  }

  async #waits(member: string): Promise<boolean> {
    const { status, stdout } = await this.host.run("guest", "status", "--local", member, "--json")
    if (status !== 0) return true
    const { offers, channels } = JSON.parse(stdout) as { offers: string[]; channels: number }
    return offers.length > 0 || channels === 0
  }

  #judge(
    outcome: { sender: number; receiver: number; delivered: Uint8Array; said: string },
    content: Uint8Array,
    fault: Fault,
  ): void {
    const { sender, receiver, delivered } = outcome
    const whole = delivered.length === content.length
    if (!content.subarray(0, delivered.length).every((byte, at) => byte === delivered[at])) {
      throw new Error(`a wrong byte among the ${delivered.length} delivered`)
    }
    if (sender === 0 && !whole)
      throw new Error(`reported as delivered with ${delivered.length} of ${content.length}`)
    if (receiver === 0 && !whole)
      throw new Error(`received "whole" with ${delivered.length} of ${content.length}`)
    const allowed = allowedStatuses(fault)
    for (const status of [sender, receiver]) {
      if (!allowed.has(status)) throw new Error(`a command ended with status ${status}: ${outcome.said}`)
    }
  }

  /** Everything that died runs again, by itself or by {@link #kill}. */
  async #recover(): Promise<void> {
    await this.host.linked("a")
    await this.host.linked("b")
    await this.host.free()
  }

  async #transferWorks(when: string, tries = 1): Promise<void> {
    const content = contentOf(this.#round + 7, 50_000)
    const outcome = await this.#transfer({ bytes: content.length, mode: "plain" }, content, {})
    const same = Buffer.compare(outcome.delivered, content) === 0
    if (outcome.sender === 3 && tries > 1) return this.#transferWorks(when, tries - 1)
    if (outcome.sender !== 0 || outcome.receiver !== 0 || !same) {
      throw new Error(
        `a transfer ${when}: sender ${outcome.sender}, receiver ${outcome.receiver}, same: ${same}; ${outcome.said}`,
      )
    }
    const receipts = await this.host.audit("receipt")
    if (!receipts.some((row) => JSON.stringify(row).includes(outcome.channel))) {
      throw new Error(`a transfer ${when} has no receipt in the audit log`)
    }
    await this.host.free()
  }

  async #nothingIsLeft(): Promise<void> {
    const { ok } = await this.host.ask<{ ok: boolean }>("audit.verify")
    if (!ok) throw new Error("the audit chain does not hold")
    const before = this.#baseline!
    await this.host.until(
      "no process but the daemons",
      () => processesOf(this.host.folder).length <= before.processes,
    )
    const now = this.#resources()
    if (now.sockets.join() !== before.sockets.join())
      throw new Error(`files in run/: ${now.sockets.join(" ")}`)
    for (const [who, count] of Object.entries(now.descriptors)) {
      const more = count - (before.descriptors[who] ?? 0)
      if (more > DESCRIPTOR_SLACK) throw new Error(`${who} has ${more} more files open than at first`)
    }
  }

  #resources(): { descriptors: Record<string, number>; processes: number; sockets: string[] } {
    const { host } = this
    const pids = { mvm: host.serving.pid, a: host.agentOf("a").pid, b: host.agentOf("b").pid }
    const descriptors = Object.fromEntries(
      Object.entries(pids).map(([who, pid]) => [who, descriptorsOf(pid)]),
    )
    const run = join(host.state, "run")
    const sockets = readdirSync(run, { recursive: true }).map(String).sort()
    return { descriptors, processes: processesOf(host.folder).length, sockets }
  }
}

function allowedStatuses(fault: Fault): ReadonlySet<number> {
  if (fault.kind !== "kill") return DISTURBED_STATUSES
  return fault.victim.startsWith("vtpm") ? WITHOUT_VTPM_STATUSES : HONEST_STATUSES
}

/** Bytes that differ from place to place and from round to round. */
function contentOf(round: number, bytes: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4))
  let state = (round * 2654435761) >>> 0 || 1
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[at] = state
  }
  return new Uint8Array(words.buffer, 0, bytes)
}

/** Feeds a sender piece by piece, so that a re-measurement falls into the transfer. */
async function feed(sender: Running, content: Uint8Array): Promise<void> {
  const stdin = sender.process.stdin as Bun.FileSink
  try {
    for (let at = 0; at < content.length; at += SLOW_PIECE) {
      await stdin.write(content.subarray(at, at + SLOW_PIECE))
      await stdin.flush()
      await Bun.sleep(100)
    }
    await stdin.end()
  } catch {
    // The sender is gone; its status tells.
  }
}

function nameOf(victim: Victim): string {
  return victim.slice(-1)
}

function vtpmPid(host: TestHost, member: string): number | undefined {
  const path = join(host.state, "run", member, "run.json")
  if (!statSync(path, { throwIfNoEntry: false })) return undefined
  return (JSON.parse(readFileSync(path, "utf8")) as { vtpm: { pid: number } }).vtpm.pid
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It ended by itself meanwhile.
  }
}
