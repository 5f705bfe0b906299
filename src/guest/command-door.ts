/**
 * @module guest/command-door
 *
 * The agent's local socket: who comes in, and how many. The socket's owner, group and mode decide which users may
 * connect at all; the kernel says which of them it is, and /proc which program.
 */

import { chmodSync, chownSync, mkdirSync } from "node:fs"
import { dirname } from "node:path"
import { MvmError, asMvmError, errnoOf } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import { peerCredentials } from "../platform/posix.ts"
import { connectUnix, listenUnix, type ByteSocket } from "../platform/unix-socket.ts"
import type { Program } from "../wire/messages.ts"
import type { CommandSession } from "./command-session.ts"
import type { MeasurementSource } from "./measurement-source.ts"
import { ProgramIdentifier } from "./programs.ts"

/** Connections at once: in all, and of one user that is not the agent's own. */
const MAX_CONNECTIONS = 4096
const MAX_CONNECTIONS_OF_USER = 256

/** What a command may say before its program is identified. */
const MAX_EARLY_BYTES = 64 * 1024

export interface DoorOptions {
  readonly source: MeasurementSource
  readonly log: Log
  /** A program is known: whoever speaks for it from now on. */
  open(socket: ByteSocket, who: { program: Program; isOwn: boolean }): CommandSession
}

/** Where the agent listens, and for whom. */
export interface DoorPlace {
  readonly path: string
  /** Whose group may connect; undefined: only the agent's own user. */
  readonly gid: number | undefined
}

export class CommandDoor {
  readonly sessions = new Set<CommandSession>()
  readonly #options: DoorOptions
  readonly #programs = new ProgramIdentifier()
  /** Connections by user. */
  readonly #connections = new Map<number, number>()
  #listener: { close(): void } | undefined
  #isGroups = false

  constructor(options: DoorOptions) {
    this.#options = options
  }

  /** @throws MvmError `io` when it cannot listen there. */
  listen({ path, gid }: DoorPlace): void {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    this.#isGroups = gid !== undefined
    this.#listener = listenUnix(path, 0o600, (socket) => this.#adopt(socket))
    if (gid === undefined) return
    try {
      // In this order: nobody but the group is ever let in.
      chownSync(path, process.geteuid?.() ?? 0, gid)
      chmodSync(path, 0o660)
    } catch (cause) {
      this.close()
      throw new MvmError("io", `cannot give ${path} to group ${gid}: ${errnoOf(cause) ?? "failed"}`, {
        cause,
      })
    }
  }

  close(): void {
    this.#listener?.close()
  }

  /** Identifies a process and has it measured. @throws MvmError `refused` when that cannot be. */
  async identify(pid: number, uid: number): Promise<Program> {
    const { source } = this.#options
    const program = await this.#programs.identify(pid, uid)
    await source.measure(program.path, program.digest)
    return program
  }

  /** Whatever became of the socket's mode: without a group it is its own user's alone. */
  #isLetIn(uid: number): boolean {
    return this.#isGroups || uid === 0 || uid === process.geteuid?.()
  }

  #adopt(socket: ByteSocket): void {
    const { pid, uid } = peerCredentials(socket.fd)
    if (!this.#isLetIn(uid) || !this.#enter(uid)) return socket.close()
    let session: CommandSession | undefined
    const early: Uint8Array[] = []
    let earlyBytes = 0
    socket.handlers = {
      onData: (chunk) => {
        if (session) return session.receive(chunk)
        earlyBytes += chunk.length
        if (earlyBytes > MAX_EARLY_BYTES) return socket.close()
        early.push(chunk.slice())
      },
      onClose: () => {
        this.#leave(uid)
        if (!session) return
        this.sessions.delete(session)
        session.ended()
      },
    }
    void this.identify(pid, uid).then(
      (program) => {
        if (socket.closed) return
        session = this.#options.open(socket, { program, isOwn: pid === process.pid })
        this.sessions.add(session)
        for (const chunk of early) session.receive(chunk)
      },
      (error: unknown) => {
        this.#options.log.warn("command_refused", { uid, message: asMvmError(error).message })
        socket.close()
      },
    )
  }

  #enter(uid: number): boolean {
    const count = this.#connections.get(uid) ?? 0
    const all = [...this.#connections.values()].reduce((sum, one) => sum + one, 0)
    const isOwn = uid === process.geteuid?.()
    if (all >= MAX_CONNECTIONS || (!isOwn && count >= MAX_CONNECTIONS_OF_USER)) {
      this.#options.log.warn("commands_full", { uid, count, all })
      return false
    }
    this.#connections.set(uid, count + 1)
    return true
  }

  #leave(uid: number): void {
    const left = (this.#connections.get(uid) ?? 0) - 1
    if (left > 0) this.#connections.set(uid, left)
    else this.#connections.delete(uid)
  }
}

/** @throws MvmError `busy` when an agent already answers at `path`. */
export async function refuseSecondAgent(path: string): Promise<void> {
  const other = await connectUnix(path).catch(() => undefined)
  if (!other) return
  other.close()
  throw new MvmError("busy", `an agent already answers at ${path}`, {
    hint: "stop it first, or give this one another --socket",
  })
}
