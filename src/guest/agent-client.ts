/**
 * @module guest/agent-client
 *
 * A command's connection to its agent. Messages that matter to the data path land in plain fields, which the
 * pumps look at between records; nothing here blocks.
 */

import { MvmError } from "../lib/errors.ts"
import { connectUnix, type ByteSocket } from "../platform/unix-socket.ts"
import { errorFromPeer } from "../wire/link.ts"
import { LocalLink, type LocalFields, type LocalMessage, type LocalName } from "../wire/local-link.ts"

/** Where records go that the agent carries. */
export interface CarriedRecords {
  record(part: Uint8Array, more: boolean): void
  /** The other end took records up to here. */
  taken(takenBytes: number): void
}

/** What the agent answers to a command that leaves or collects a deposit. */
export type DepositReply = Extract<
  LocalMessage<"agent">,
  { readonly name: "DEPOSITING" | "COLLECTED" | "DEPOSIT_DATA" | "DONE" }
>

export type EndStatement = LocalFields<"FIN">

export class AgentClient {
  /** Why nothing more may be released; set once. */
  failure: MvmError | undefined
  /** A KICK came since it was last taken. */
  kicked = false
  channel: LocalFields<"CHANNEL"> | undefined
  offered = false
  state: string | undefined
  peers: LocalFields<"PEER_LIST"> | undefined
  /** What the steps of a ping's opening took. */
  stages: LocalFields<"STAGES"> | undefined
  peerFin: EndStatement | undefined
  peerReceipt: EndStatement | undefined
  /** FIN and RECEIPT statements of ours that the MVM has in its audit log. */
  logged = 0
  /** performance.now() after which nothing is released. */
  leaseEndsMs = Infinity
  readonly #socket: ByteSocket
  readonly #link: LocalLink<"client">
  #wake: (() => void) | undefined
  #carried: CarriedRecords | undefined
  readonly #replies: DepositReply[] = []
  /** Came before anybody was there for them. */
  #early: LocalFields<"RECORD">[] = []

  private constructor(socket: ByteSocket) {
    this.#socket = socket
    this.#link = new LocalLink(
      "client",
      (bytes) => socket.write(bytes),
      (message) => this.#handle(message),
    )
    socket.handlers = {
      onData: (chunk) => {
        try {
          this.#link.receive(chunk)
        } catch (error) {
          this.#failed(error as MvmError)
        }
        this.#notify()
      },
      onClose: () => {
        this.#failed(new MvmError("no_agent", "the agent went away"))
        this.#notify()
      },
    }
  }

  /** @throws MvmError `no_agent` when none answers at `path`. */
  static async connect(path: string): Promise<AgentClient> {
    try {
      return new AgentClient(await connectUnix(path))
    } catch (error) {
      const denied = (error as Error).message.includes("EACCES")
      const problem = denied ? `this user may not use the agent at ${path}` : `no agent answers at ${path}`
      throw new MvmError(denied ? "refused" : "no_agent", problem, {
        cause: error,
        hint: denied
          ? "ask root to add it to the group of that socket"
          : "start it with mvm guest agent, or name its socket with --socket",
      })
    }
  }

  /** For poll: readable means that a turn of the event loop brings news. */
  get fd(): number {
    return this.#socket.fd
  }

  send<N extends LocalName>(name: N, fields: LocalFields<N>): void {
    this.#link.send(name, fields)
  }

  /** Wake the other end. */
  kick(): void {
    this.#link.kick()
  }

  /** From now on records that the agent carries go to `carried`. @throws MvmError as that does. */
  carry(carried: CarriedRecords): void {
    this.#carried = carried
    for (const { record, more } of this.#early.splice(0)) carried.record(record, more)
  }

  /** The next answer about a deposit, which must be this one. @throws MvmError as {@link until}, `protocol` */
  async reply<N extends DepositReply["name"]>(name: N): Promise<LocalFields<N>> {
    const reply = await this.until(() => this.#replies.shift())
    if (reply.name === name) return reply.fields as LocalFields<N>
    throw new MvmError("protocol", `${reply.name}: not ${name}`)
  }

  /** Resolves when `ready` says so. @throws MvmError what {@link check} does, if that comes first. */
  async until<T>(ready: () => T | undefined | false): Promise<T> {
    for (;;) {
      const value = ready()
      if (value !== undefined && value !== false) return value
      this.check()
      await this.#woken(this.leaseEndsMs - performance.now() + 1)
    }
  }

  /** Resolves when `ready` says so, the connection failed, or `timeoutMs` passed. */
  async event(timeoutMs: number, ready: () => boolean): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (!ready() && !this.failure) {
      const leftMs = deadline - performance.now()
      if (leftMs <= 0) return
      await this.#woken(leftMs)
    }
  }

  /** Lets who awaits {@link until} or {@link event} look again. */
  nudge(): void {
    this.#notify()
  }

  /** @throws MvmError when the channel may not go on: failed, revoked, or its lease ran out. */
  check(): void {
    if (this.failure) throw this.failure
    if (performance.now() > this.leaseEndsMs) {
      this.failure = new MvmError("lease_expired", "the MVM did not renew the lease of this channel", {
        hint: "is mvm serve still running on the host?",
      })
      throw this.failure
    }
  }

  /** Ends whatever is waited for with `error`. */
  giveUp(error: MvmError): void {
    this.#failed(error)
    this.#notify()
  }

  close(): void {
    this.failure ??= new MvmError("aborted", "the connection was closed")
    this.#socket.finish()
  }

  #handle(message: LocalMessage<"agent">): void {
    switch (message.name) {
      case "CHANNEL":
        if (this.channel) return this.#failed(new MvmError("protocol", "CHANNEL: there is one already"))
        this.channel = message.fields
        this.#lease(message.fields.leaseMs)
        return
      case "OFFERED":
        this.offered = true
        return
      case "PEER_LIST":
        this.peers = message.fields
        return
      case "STAGES":
        this.stages = message.fields
        return
      case "STATE":
        this.state = message.fields.json
        return
      case "KICK":
        this.kicked = true
        return
      case "RECORD": {
        const { record, more } = message.fields
        this.kicked = true
        if (this.#carried) this.#carried.record(record, more)
        else this.#early.push(message.fields)
        return
      }
      case "CREDIT":
        this.kicked = true
        this.#carried?.taken(message.fields.taken)
        return
      case "LEASE":
        return this.#lease(message.fields.leaseMs)
      case "FIN":
        this.peerFin = message.fields
        return
      case "RECEIPT":
        this.peerReceipt = message.fields
        return
      case "LOGGED":
        this.logged += 1
        return
      case "DEPOSITING":
      case "COLLECTED":
      case "DEPOSIT_DATA":
      case "DONE":
        this.#replies.push(message)
        return
      case "REVOKE":
        return this.#failed(new MvmError("revoked", message.fields.message))
      case "ABORT":
        return this.#failed(errorFromPeer(message.fields.code, message.fields.message))
      case "FAILED": {
        const { code, message: text, hint } = message.fields
        return this.#failed(errorFromPeer(code, text, hint))
      }
    }
  }

  /** A lease that is over stays over, however late this process gets to read that it was renewed. */
  #lease(leaseMs: number): void {
    const now = performance.now()
    if (now <= this.leaseEndsMs) this.leaseEndsMs = now + leaseMs
  }

  #failed(error: MvmError): void {
    this.failure ??= error
  }

  /** Resolves with the next message, or after `timeoutMs`. */
  #woken(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = Number.isFinite(timeoutMs) ? setTimeout(resolve, timeoutMs) : undefined
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  #notify(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }
}
