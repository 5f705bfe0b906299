/**
 * @module test/faults/rig
 *
 * One MVM with three local endpoints, one of which maps no memory, in which a transfer is made, a fault falls into
 * it, and everything that must still be true is looked at: no wrong byte came out, nothing was reported that did not
 * happen, nothing is left, the audit chain holds and the next transfer works.
 */

import { readFileSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { identifyProcess } from "../../src/platform/process.ts"
import { ALLOW_ALL, TestHost, type Running } from "../integration/host.ts"
import { LinkProxy } from "../integration/link-proxy.ts"
import { descriptorsOf, processesOf } from "../integration/processes.ts"
import { allowedStatuses, contentOf, feed } from "./commands.ts"
import { passDeposit, settleDeposit } from "./deposit.ts"
import type { Fault, FaultPoint, Member, Moment, Transfer, Victim } from "./point.ts"

const FREEZE_MS = 1500
/** A link that lost a frame finds out with the next one, and begins a new epoch under whatever runs then. */
const DISTURBED_TRIES = 3
/** Files a process may have open beyond what it had: caches fill, sockets of the moment come and go. */
const DESCRIPTOR_SLACK = 16
/** Time for a command in a channel to hear that the other end is gone. */
const WAITING_MS = 400

export interface Injected {
  /** False: the moment did not come in this transfer. */
  readonly reached: boolean
  readonly sender: number
  readonly receiver: number
  readonly deliveredBytes: number
}

const MEMBERS = ["a", "b", "c"] as const
/** It says so; its records are relayed. */
const MAPS_NOTHING = "c"

interface Ends {
  sender?: Running
  receiver?: Running
}

export class Rig {
  readonly host: TestHost
  readonly #proxy: LinkProxy
  /** Who receives in this round. */
  #receiver: (typeof MEMBERS)[number] = "b"
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
      host = await TestHost.start({
        guestState: proxy.guestState,
        onMember: proxy.add,
        agents: { [MAPS_NOTHING]: ["--map", "none"] },
      })
      host.writePolicy(ALLOW_ALL.replace("action", "deposit = true\naction"))
      const rig = new Rig(host, proxy)
      for (const name of MEMBERS) await host.member(name)
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
    const { mode } = point.transfer
    this.#receiver = mode === "relayed" || mode === "resumed" ? MAPS_NOTHING : "b"
    const ends: Ends = {}
    const reached = this.#arm(point.moment, point.fault, ends, mode === "resumed")
    if (mode === "begun") {
      // Whoever it waits for may be what dies.
      await this.#begin("a").catch(() => {})
      await reached().recovered
      // One that found no MVM at its beginning ends; whoever supervises it starts it again.
      if (this.host.agentOf("a").process.exitCode !== null) await this.host.agent("a")
      await this.#recover()
    }
    const content = contentOf(this.#round, point.transfer.bytes)
    const { delivered, said, ...outcome } = await this.#transfer(point.transfer, content, ends)
    this.#proxy.watcher = () => true
    const happened = reached()
    this.#judge({ ...outcome, delivered, said }, content, point)
    await happened.recovered
    await this.#recover()
    if (mode === "deposited") await settleDeposit(this.host, content, { ...outcome, delivered, said })
    await this.#transferWorks("after it", point.fault.kind === "kill" ? 1 : DISTURBED_TRIES)
    await this.#nothingIsLeft()
    return { ...outcome, reached: happened.reached }
  }

  /** Has `fault` fall at `moment`. The result tells, when the transfer is over, whether it did. */
  #arm(
    moment: Moment,
    fault: Fault,
    ends: Ends,
    isCut: boolean,
  ): () => { reached: boolean; recovered: Promise<void> } {
    let isCutDue = isCut
    let recovered: Promise<void> | undefined
    const strike = (): void => {
      if (recovered || !this.#isThere(fault, ends)) return
      recovered ??= this.#strike(fault, ends)
      recovered.catch(() => {})
    }
    let timer: ReturnType<typeof setTimeout> | undefined
    if ("afterMs" in moment) timer = setTimeout(() => strike(), moment.afterMs)
    else {
      this.#proxy.watcher = (passing) => {
        if (isCutDue && passing.name === "CREDIT") {
          isCutDue = false
          this.#proxy.cut("a")
        }
        const isIt =
          passing.member === this.#nameOf(moment.member) &&
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
        return this.#proxy.cut(this.#nameOf(fault.member))
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
      case "agent b":
        return this.#begin(this.#ofVictim(victim))
      case "vtpm a":
      case "vtpm b": {
        const member = this.#ofVictim(victim)
        const old = vtpmPid(host, member)
        if (old !== undefined) signal(old, "SIGKILL")
        // The agent's next life begins with another one; an agent that was just beginning has ended.
        return host.until(`another vTPM of ${member}`, () => {
          return (vtpmPid(host, member) ?? old) !== old || host.agentOf(member).process.exitCode !== null
        })
      }
      default:
        return signal(this.#pidOf(victim, ends)!, "SIGKILL")
    }
  }

  #nameOf(member: Member): string {
    return member === "a" ? "a" : this.#receiver
  }

  #ofVictim(victim: Victim): string {
    return this.#nameOf(victim.endsWith("a") ? "a" : "b")
  }

  /** The agent of `name` dies and begins anew, whatever falls into that; then it is there. */
  async #begin(name: string): Promise<void> {
    const agent = this.host.agentOf(name)
    agent.kill("SIGKILL")
    await agent.over()
    await this.host.agent(name)
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
        return this.host.agentOf(this.#ofVictim(victim)).pid
      default:
        return vtpmPid(this.host, this.#ofVictim(victim))
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
    if (mode === "deposited") {
      const passed = await passDeposit(host, content, ends)
      return { ...passed, deliveredBytes: passed.delivered.length, channel: "" }
    }
    const receiver = this.#receiver
    const out = join(host.folder, "delivered")
    const words =
      mode === "verify-first" ? ["--verify-first"] : mode === "requested" ? ["a", "--request"] : []
    if (mode === "requested") {
      ends.sender = host.send("a", receiver, content, "--offer", "--json")
      await Promise.race([ends.sender.says("offering"), ends.sender.process.exited]).catch(() => {})
      ends.receiver = host.spawn(["guest", "recv", "--local", receiver, ...words], { stdout: out })
    } else {
      ends.receiver = host.spawn(["guest", "recv", "--local", receiver, ...words], { stdout: out })
      await Promise.race([ends.receiver.says("waiting for"), ends.receiver.process.exited]).catch(() => {})
      const more = mode === "sha256" ? ["--digest", "sha256"] : []
      const stdin = mode === "slow" ? "pipe" : content
      ends.sender = host.send("a", receiver, stdin, "--wait", "5s", "--json", ...more)
      if (mode === "slow") void feed(ends.sender, content)
    }
    const [first, second] = mode === "requested" ? [ends.receiver, ends.sender] : [ends.sender, ends.receiver]
    const firstStatus = await first.over()
    const secondStatus = await this.#overUnlessWaiting(second, mode === "requested" ? "a" : receiver)
    const statuses = [firstStatus, secondStatus]
    const [sent, received] = mode === "requested" ? statuses.toReversed() : statuses
    const delivered = new Uint8Array(readFileSync(out))
    const channel = /"channel":"([0-9a-f]+)"/.exec(ends.sender.stderr())?.[1] ?? ""
    const said = `sender: ${ends.sender.stderr().trim()}; receiver: ${ends.receiver.stderr().trim()}`
    return {
      sender: sent!,
      receiver: received!,
      deliveredBytes: delivered.length,
      delivered,
      channel,
      said,
    }
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
    { fault, transfer }: FaultPoint,
  ): void {
    const { sender, receiver, delivered } = outcome
    const whole = delivered.length === content.length
    if (!content.subarray(0, delivered.length).every((byte, at) => byte === delivered[at])) {
      throw new Error(`a wrong byte among the ${delivered.length} delivered`)
    }
    // A deposit that is kept may still be collected: that is looked at when everything runs again.
    if (sender === 0 && !whole && transfer.mode !== "deposited")
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
    for (const name of MEMBERS) await this.host.linked(name)
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
    const pids = [
      ["mvm", host.serving.pid] as const,
      ...MEMBERS.map((name) => [name, host.agentOf(name).pid] as const),
    ]
    const descriptors = Object.fromEntries(pids.map(([who, pid]) => [who, descriptorsOf(pid)]))
    const run = join(host.state, "run")
    const sockets = readdirSync(run, { recursive: true }).map(String).sort()
    return { descriptors, processes: processesOf(host.folder).length, sockets }
  }
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
