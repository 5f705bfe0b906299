/**
 * @module platform/libvirt/events
 *
 * What QEMU tells libvirt, as `virsh qemu-monitor-event` prints it: one client for all domains of a connection, started
 * again when it ends. What happens while it is away is not heard: nobody may take silence for "no reset", and who
 * listened is told, to look again once it is back.
 */

import { MvmError } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import { pause } from "../../lib/pause.ts"
import type { QmpEvent } from "../monitor.ts"
import { requireVirsh, type Virsh } from "./virsh.ts"

const FIRST_DELAY_MS = 500
const MAX_DELAY_MS = 30_000
const MAX_LINE_BYTES = 1024 * 1024
/** A client that lived this long had a daemon to talk to. */
const SETTLED_MS = 10_000

/** It says nothing when it begins to hear; by then it does. */
const BEGINNING_MS = 500
const LISTENING_MS = 10_000

type Handler = (event: QmpEvent) => void

export class VirshEvents {
  readonly #virsh: Virsh
  readonly #log: Log
  readonly #handlers = new Map<string, Set<Handler>>()
  readonly #lost = new Set<() => void>()
  #listening = Promise.withResolvers<void>()
  #child: Bun.Subprocess<"ignore", "pipe", "pipe"> | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #delayMs = FIRST_DELAY_MS
  #isOpen = false

  constructor(virsh: Virsh, log: Log) {
    this.#virsh = virsh
    this.#log = log
  }

  /** Begins to listen; once is enough. */
  open(): void {
    if (this.#isOpen) return
    this.#isOpen = true
    void this.#listen()
  }

  /** Calls `handler` for events of the domain of that name; returns a function that stops that. */
  onEvent(domain: string, handler: Handler): () => void {
    const handlers = this.#handlers.get(domain) ?? new Set()
    this.#handlers.set(domain, handlers.add(handler))
    return () => {
      handlers.delete(handler)
      if (handlers.size === 0) this.#handlers.delete(domain)
    }
  }

  /** Calls `handler` when events may be missed from now on; returns a function that stops that. */
  onLost(handler: () => void): () => void {
    this.#lost.add(handler)
    return () => this.#lost.delete(handler)
  }

  /** Resolves when events are heard. @throws MvmError `unreachable` when they are not in time; `aborted` by `signal`. */
  async listening(signal: AbortSignal): Promise<void> {
    const over = new AbortController()
    const isLate = pause(LISTENING_MS, AbortSignal.any([signal, over.signal])).then(() => false)
    const isHeard = await Promise.race([this.#listening.promise.then(() => true), isLate])
    over.abort()
    if (isHeard) return
    if (signal.aborted) throw new MvmError("aborted", "nobody waits for libvirt any more")
    throw new MvmError("unreachable", `libvirt does not say at ${this.#virsh.uri} what its QEMUs do`)
  }

  close(): void {
    this.#isOpen = false
    clearTimeout(this.#timer)
    this.#child?.kill("SIGTERM")
  }

  async #listen(): Promise<void> {
    const started = performance.now()
    let said = ""
    let isHeard = false
    let beginning: ReturnType<typeof setTimeout> | undefined
    try {
      const child = Bun.spawn([...dyingWithParent(), ...this.#words()], {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, LC_ALL: "C" },
      })
      this.#child = child
      child.unref()
      beginning = setTimeout(() => {
        isHeard = true
        this.#listening.resolve()
      }, BEGINNING_MS)
      const errors = new Response(child.stderr).text()
      await this.#read(child.stdout)
      said = await errors
      await child.exited
    } catch (error) {
      said = String(error)
    }
    this.#child = undefined
    clearTimeout(beginning)
    // Who waits for a client that never heard waits for the next.
    if (isHeard) this.#listening = Promise.withResolvers()
    for (const handler of [...this.#lost]) handler()
    if (!this.#isOpen) return
    if (performance.now() - started > SETTLED_MS) this.#delayMs = FIRST_DELAY_MS
    const { message } = this.#virsh.failure("qemu-monitor-event", said)
    this.#log.warn("libvirt_events", { uri: this.#virsh.uri, message, delayMs: this.#delayMs })
    this.#timer = setTimeout(() => void this.#listen(), this.#delayMs)
    this.#timer.unref()
    this.#delayMs = Math.min(this.#delayMs * 2, MAX_DELAY_MS)
  }

  #words(): string[] {
    return [requireVirsh(), "-q", "-c", this.#virsh.uri, "qemu-monitor-event", "--loop"]
  }

  async #read(stdout: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder()
    let rest = ""
    for await (const chunk of stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n")
      rest = lines.pop() ?? ""
      if (rest.length > MAX_LINE_BYTES) throw new Error("a line of virsh is too long")
      for (const line of lines) this.#line(line)
    }
  }

  #line(line: string): void {
    const said = parseEventLine(line, this.#handlers.keys())
    if (!said) return
    for (const handler of [...(this.#handlers.get(said.domain) ?? [])]) handler(said.event)
  }
}

/**
 * "event SHUTDOWN at 1700000000.000001 for domain 'web': {...}": undefined for lines that are no event of one of
 * `domains`.
 */
export function parseEventLine(
  line: string,
  domains: Iterable<string>,
): { domain: string; event: QmpEvent } | undefined {
  const head = /^event ([A-Z0-9_]+)(?: at [0-9.]+)? for domain '/.exec(line)
  const name = head?.[1]
  if (!head || name === undefined) return undefined
  const rest = line.slice(head[0].length)
  for (const domain of domains) {
    // A name may hold any of the punctuation around it.
    if (!rest.startsWith(`${domain}': `)) continue
    return { domain, event: { name, data: objectOf(rest.slice(domain.length + 3)) } }
  }
  return undefined
}

function objectOf(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    // "<null>": an event without data.
    return {}
  }
}

/** A manager that is killed must not leave its listener behind. */
function dyingWithParent(): string[] {
  const setpriv = Bun.which("setpriv")
  return setpriv === null ? [] : [setpriv, "--pdeathsig", "TERM"]
}
