/**
 * @module test/integration/link-proxy
 *
 * A process group between agents and their MVM that sees each frame of a link as it passes, and can stop, drop or
 * add some: what an observer with the sockets' own rights can do, with no door in the program for it. Agents find the
 * proxy's socket in a folder of their own ({@link LinkProxy.guestState}); the vTPM's data socket is passed through.
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  connectUnix,
  listenUnix,
  type ByteSocket,
  type UnixListener,
} from "../../src/platform/unix-socket.ts"
import { FrameReader, encodeFrame, type Frame } from "../../src/wire/frame.ts"
import { SEAL_BYTES } from "../../src/wire/link-auth.ts"
import { MESSAGES } from "../../src/wire/messages.ts"
import { decodeMessage } from "../../src/wire/table.ts"

export type Direction = "to mvm" | "to guest"

export interface Passing {
  readonly member: string
  readonly direction: Direction
  /** Name of the message, or "?" for one that does not decode. */
  readonly name: string
  /** The message, its seal taken off. */
  readonly message: Uint8Array
  /** The frame as it travels. */
  readonly frame: Uint8Array
  /** Sends bytes on the same way, before or after this frame. */
  inject(bytes: Uint8Array): void
}

/** False: the frame goes no further. */
export type Watcher = (passing: Passing) => boolean | void

export interface TpmPassing {
  readonly member: string
  readonly direction: "command" | "response"
  readonly bytes: Uint8Array
}

export class LinkProxy {
  readonly guestState = mkdtempSync(join(tmpdir(), "mvp-"))
  /** Sees every frame before it goes on. */
  watcher: Watcher = () => true
  onTpm: (passing: TpmPassing) => void = () => {}
  readonly #state: () => string
  readonly #listeners: UnixListener[] = []
  readonly #sockets = new Map<ByteSocket, string>()

  /** @param state the MVM's state directory, known once the MVM is there */
  constructor(state: () => string) {
    this.#state = state
  }

  /** Stands between the agent of `name` and the MVM from now on. */
  readonly add = (name: string): void => {
    const run = join(this.guestState, "run", name)
    mkdirSync(run, { recursive: true })
    const real = (socket: string): string => join(this.#state(), "run", name, socket)
    const link = listenUnix(join(run, "link.sock"), 0o600, (agent) => {
      this.#sockets.set(agent, name)
      this.#pass(agent, real("link.sock"), (direction, forward) => this.#frames(name, direction, forward))
    })
    const tpm = listenUnix(join(run, "tpm.sock"), 0o600, (agent) => {
      this.#pass(agent, real("tpm.sock"), (direction, forward) => (chunk) => {
        this.onTpm({
          member: name,
          direction: direction === "to mvm" ? "command" : "response",
          bytes: chunk.slice(),
        })
        forward(chunk)
      })
    })
    this.#listeners.push(link, tpm)
  }

  /** Ends the links of `member`, or all; agents make new ones. Their vTPMs stay. */
  cut(member?: string): void {
    for (const [socket, of] of [...this.#sockets]) if (member === undefined || of === member) socket.close()
  }

  close(): void {
    for (const listener of this.#listeners) listener.close()
    this.cut()
    rmSync(this.guestState, { recursive: true, force: true })
  }

  #pass(
    agent: ByteSocket,
    path: string,
    through: (direction: Direction, forward: (bytes: Uint8Array) => void) => (chunk: Uint8Array) => void,
  ): void {
    const early: Uint8Array[] = []
    let mvm: ByteSocket | undefined
    const toMvm = through("to mvm", (bytes) => {
      if (mvm) mvm.write(bytes)
      else early.push(bytes.slice())
    })
    const toGuest = through("to guest", (bytes) => agent.write(bytes))
    agent.handlers = {
      onData: toMvm,
      onClose: () => {
        this.#sockets.delete(agent)
        mvm?.close()
      },
    }
    connectUnix(path, { onData: toGuest, onClose: () => agent.close() }).then(
      (socket) => {
        if (agent.closed) return socket.close()
        mvm = socket
        for (const bytes of early) socket.write(bytes)
      },
      () => agent.close(),
    )
  }

  #frames(
    member: string,
    direction: Direction,
    forward: (bytes: Uint8Array) => void,
  ): (chunk: Uint8Array) => void {
    const reader = new FrameReader()
    return (chunk) => {
      for (const frame of reader.push(chunk)) {
        const bytes = encodeFrame(frame.payload, { auth: frame.authenticated })
        const message = frame.authenticated ? frame.payload.subarray(SEAL_BYTES) : frame.payload
        const name = nameOf(frame, direction)
        const passes = this.watcher({ member, direction, name, message, frame: bytes, inject: forward })
        if (passes !== false) forward(bytes)
      }
    }
  }
}

function nameOf({ payload, authenticated }: Frame, direction: Direction): string {
  try {
    const message = authenticated ? payload.subarray(SEAL_BYTES) : payload
    return decodeMessage(MESSAGES, message, direction === "to mvm" ? "guest" : "mvm").name
  } catch {
    return "?"
  }
}
