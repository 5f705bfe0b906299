/**
 * @module guest/sink
 *
 * The descriptor a receiver writes to: waits while it is full, with an eye on the channel, and hands over nothing
 * once the lease is over.
 *
 * A write that blocks would hand the rest of its bytes over whenever their reader gets to it, long after a REVOKE
 * that nobody looked at meanwhile. So a pipe is written through a description of this process's own that does not
 * block (the shared one stays as it is, for the others that hold it), and anything else that may block in pieces
 * that a descriptor ready for writing takes at once.
 */

import { closeSync, constants, fstatSync, openSync, writeSync, type Stats } from "node:fs"
import { isatty } from "node:tty"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { POLLIN, POLLOUT, PollSet } from "../platform/posix.ts"
import { Attention } from "./attention.ts"
import { turn } from "./channel-end.ts"
import { VisibleBytes } from "./streams/visible-writer.ts"

/** The longest time without a look at the agent's socket. */
const IDLE_POLL_MS = 200

/** PIPE_BUF: a pipe, terminal or socket that polls as writable takes so much without blocking. */
const READY_BYTES = 4096

/** Where what a peer says goes. */
export interface Output {
  /** @throws MvmError `sink` when nobody takes more, and what the channel's check does. */
  write(bytes: Uint8Array): Promise<void>
  close(): void
}

/** What a sink needs of its channel. */
export interface SinkChannel {
  readonly agent: { readonly fd: number }
  /** @throws MvmError when nothing more may be released. */
  check(): void
}

export class Sink implements Output {
  readonly #fd: number
  readonly #isOwn: boolean
  readonly #mostBytes: number
  readonly #channel: SinkChannel
  readonly #attention: Attention
  readonly #set: PollSet
  /** Whether a write may be tried without asking first. */
  readonly #isPrompt: boolean
  readonly #failed: (errno: string | undefined, cause: unknown) => MvmError

  constructor(fd: number, channel: SinkChannel, failed = sinkFailed) {
    const stat = fstatSync(fd)
    const own = stat.isFIFO() ? openUnblocked(fd) : undefined
    this.#fd = own ?? fd
    this.#isOwn = own !== undefined
    this.#isPrompt = own !== undefined || stat.isFile() || isNullDevice(stat)
    this.#mostBytes = this.#isPrompt ? Infinity : READY_BYTES
    this.#failed = failed
    this.#channel = channel
    this.#attention = new Attention(channel.agent.fd)
    this.#set = new PollSet([
      { fd: this.#fd, events: POLLOUT },
      { fd: channel.agent.fd, events: POLLIN },
    ])
  }

  async write(bytes: Uint8Array): Promise<void> {
    let mayWrite = this.#isPrompt
    for (let at = 0; at < bytes.length;) {
      if (mayWrite) await this.#attention.look()
      else mayWrite = await this.#becameReady()
      this.#channel.check()
      if (!mayWrite) continue
      const got = this.#writeSome(bytes.subarray(at, at + Math.min(this.#mostBytes, bytes.length)))
      at += got
      mayWrite = this.#isPrompt && got > 0
    }
  }

  close(): void {
    if (this.#isOwn) closeSync(this.#fd)
  }

  async #becameReady(): Promise<boolean> {
    this.#set.wait(IDLE_POLL_MS)
    const isReady = this.#set.revents(0) !== 0
    if (!isReady || this.#set.revents(1) !== 0) await turn()
    return isReady
  }

  #writeSome(bytes: Uint8Array): number {
    try {
      return writeSync(this.#fd, bytes)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === "EAGAIN" || errno === "EINTR") return 0
      throw this.#failed(errno, error)
    }
  }
}

/**
 * A {@link Sink}; a terminal is shown control characters as text.
 *
 * @param isRaw pass them on to a terminal, too
 */
export function outputOf(fd: number, channel: SinkChannel, isRaw: boolean): Output {
  const sink = new Sink(fd, channel)
  if (isRaw || !isatty(fd)) return sink
  const visible = new VisibleBytes()
  return { write: (bytes) => sink.write(visible.of(bytes)), close: () => sink.close() }
}

/** /dev/null takes everything at once. @spec Linux Documentation/admin-guide/devices.txt (char 1:3) */
function isNullDevice(stat: Stats): boolean {
  return stat.isCharacterDevice() && stat.rdev === ((1 << 8) | 3)
}

/** The same pipe, opened once more; undefined where that cannot be (no /proc, or its reader has gone). */
function openUnblocked(fd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK)
  } catch {
    return undefined
  }
}

function sinkFailed(errno: string | undefined, cause: unknown): MvmError {
  return new MvmError("sink", `cannot write the output: ${errno ?? (cause as Error).message}`, {
    cause,
    hint: errno === "EPIPE" ? "the reader of the pipe has ended" : undefined,
  })
}
