/**
 * @module guest/services/terminal-run
 *
 * A run in a terminal of its own, for `exec --pty`. The runtime hands over what a terminal says as fast as it comes,
 * so a caller that does not read would fill memory: the terminal is told to hold its output back (as Ctrl-S does)
 * until the caller has taken what there is.
 */

import { readlinkSync } from "node:fs"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { TerminalLine } from "../../platform/terminal-line.ts"
import type { User } from "../../platform/users.ts"
import { RunGroup } from "./run-group.ts"
import { brokenBy, type ServiceCall } from "./service.ts"
import type { TerminalRequest } from "./requests.ts"
import type { Side } from "./side.ts"

/** From here on the terminal holds its output back, and from there on it goes on. */
const HOLD_BYTES = 256 * 1024
const RESUME_BYTES = 64 * 1024
/** A caller can let held output go with a Ctrl-Q; it cannot make this end keep more than that. */
const MAX_WAITING_BYTES = 16 * 1024 * 1024
/** What the end of the caller's input is to a terminal: Ctrl-D. */
const END_OF_INPUT = new Uint8Array([4])
/**
 * A terminal whose program has ended is over when nothing came in so many looks, one after the other: a clock alone
 * would run on while this process had no turn to read. Others that hold it open may go on for so long.
 */
const QUIET_LOOKS = 6
const LOOK_MS = 50
const MAX_DRAIN_MS = 3_000
const MAX_SIZE = 1000

export interface TerminalRun {
  readonly side: Side
  readonly terminal: TerminalRequest
  /** As whom it runs; undefined: as whom the server runs */
  readonly user: User | undefined
}

/** @param spawn starts the program in that terminal */
export async function runInTerminal(
  call: ServiceCall,
  { side, terminal: wanted, user }: TerminalRun,
  spawn: (terminal: Bun.TerminalOptions) => Bun.Subprocess,
): Promise<void> {
  const { stream, broken } = call
  const output = new TerminalOutput(call)
  const closed = Promise.withResolvers<void>()
  let onDrain: (() => void) | undefined
  const child = spawn({
    cols: sizeOf(wanted.columns, 80),
    rows: sizeOf(wanted.rows, 24),
    name: nameOf(wanted.name),
    data: (_terminal, bytes) => output.add(bytes),
    exit: () => closed.resolve(),
    drain: () => onDrain?.(),
  })
  const { terminal } = child
  if (!terminal) throw new MvmError("internal", "the runtime made no terminal")
  const group = new RunGroup(child)
  const release = group.endOn(broken)
  const line = output.open(child.pid, user)
  const feed = async (): Promise<void> => {
    for (;;) {
      const bytes = await stream.read()
      for (let at = 0, all = bytes ?? END_OF_INPUT; at < all.length;) {
        const written = terminal.write(all.subarray(at) as Uint8Array<ArrayBuffer>)
        at += written
        if (at < all.length) await new Promise<void>((resolve) => (onDrain = resolve))
      }
      if (bytes === null) return
    }
  }
  try {
    void feed().catch(() => {})
    void group
      .obey(side, (columns, rows) => {
        if (!terminal.closed) terminal.resize(sizeOf(columns, 80), sizeOf(rows, 24))
      })
      .catch((error: unknown) => stream.reset(asMvmError(error)))
    await child.exited
    await output.drained(closed.promise)
    await output.done()
    if (broken.aborted) throw brokenBy(broken)
    await stream.end().catch(() => {})
    stream.stop(new MvmError("sink", "the program has ended"))
  } catch (error) {
    // Until then it counts, and whoever stops the service waits for it.
    await group.end()
    throw error
  } finally {
    release()
    line?.close()
    if (!terminal.closed) terminal.close()
  }
  await side.send("EXITED", group.outcome)
  await side.end()
}

/** What the terminal said and the caller has not taken yet. */
class TerminalOutput {
  readonly #call: ServiceCall
  #line: TerminalLine | undefined
  #waitingBytes = 0
  #seenBytes = 0
  #isHeld = false
  #sent: Promise<void> = Promise.resolve()

  constructor(call: ServiceCall) {
    this.#call = call
  }

  /** Finds the terminal of process `pid`, and gives it to the user who runs in it. */
  open(pid: number, user: User | undefined): TerminalLine | undefined {
    try {
      this.#line = TerminalLine.open(readlinkSync(`/proc/${pid}/fd/0`))
      if (user) this.#line.giveTo(user.uid)
      this.#hold()
    } catch {
      // It has ended already.
    }
    return this.#line
  }

  add(bytes: Uint8Array): void {
    this.#waitingBytes += bytes.length
    this.#seenBytes += bytes.length
    if (this.#waitingBytes > MAX_WAITING_BYTES) {
      return this.#call.stream.reset(new MvmError("too_large", "the caller does not read"))
    }
    this.#hold()
    this.#sent = this.#sent
      .then(() => this.#call.stream.write(bytes))
      .catch(() => {})
      .finally(() => {
        this.#waitingBytes -= bytes.length
        if (!this.#isHeld || this.#waitingBytes > RESUME_BYTES) return
        this.#isHeld = false
        this.#line?.resume()
      })
  }

  /** Resolves when the terminal brings no more, or has for too long. @param closed resolves when it ended by itself */
  async drained(closed: Promise<void>): Promise<void> {
    const deadline = performance.now() + MAX_DRAIN_MS
    let isClosed = false
    const ended = closed.then(() => (isClosed = true))
    for (let quiet = 0, seen = this.#seenBytes; quiet < QUIET_LOOKS && !isClosed; quiet += 1) {
      await Promise.race([ended, Bun.sleep(LOOK_MS)])
      if (performance.now() > deadline) return
      // What is held back comes only when the caller has taken what there is.
      if (this.#isHeld || this.#seenBytes !== seen) quiet = -1
      seen = this.#seenBytes
    }
  }

  /** Resolves when all was taken. */
  done(): Promise<void> {
    return this.#sent
  }

  #hold(): void {
    if (this.#waitingBytes < HOLD_BYTES || !this.#line) return
    this.#isHeld = true
    this.#line.hold()
  }
}

/** Trust: what the caller says of its window; programs make tables of it. */
function sizeOf(cells: number, otherwise: number): number {
  return cells === 0 ? otherwise : Math.min(cells, MAX_SIZE)
}

/** Trust: the name goes into TERM, and programs look for a file of that name. */
function nameOf(name: string): string {
  return /^[A-Za-z0-9][A-Za-z0-9+._-]{0,63}$/.test(name) ? name : "dumb"
}
