/**
 * @module guest/command-session
 *
 * One command at the agent's local socket. It asks for one thing at a time: open a channel, or wait for one.
 * When its connection ends, what it held ends too.
 *
 * Trust: a command is a local process of some user, known by kernel credentials. What it sends is checked by the
 * message table; it can end only its own channel and sign only statements about it.
 */

import { MvmError, STATUS, asMvmError } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import { clip, type Fields, type NamedMessage } from "../wire/link.ts"
import { LocalLink, type LocalFields, type LocalMessage, type LocalName } from "../wire/local-link.ts"
import type { Program } from "../wire/messages.ts"
import { MAX_RELAYED_BYTES } from "../wire/fields.ts"
import type { ByteSocket } from "../platform/unix-socket.ts"
import type { AgentChannel, AgentChannels, Caller, EndFields } from "./agent-channels.ts"
import type { PeerEnd } from "./opening-set.ts"
import type { Carrier } from "./carriers/carrier.ts"
import type { Carriers } from "./carriers/carriers.ts"
import type { AgentDeposits } from "./deposits/agent-deposits.ts"
import { DepositSession } from "./deposits/deposit-session.ts"

/** What the session needs of its agent. */
export interface SessionHost {
  readonly channels: AgentChannels
  readonly deposits: AgentDeposits
  readonly log: Log
  readonly carriers: Carriers
  statusJson(program: Program): Promise<string>
  standingJson(): Promise<string>
  /** Whom `program` may reach, by name from behind `after` on. */
  peers(program: Program, after: string | undefined): Promise<Fields<"PEER_LIST">>
  registerOffer(session: CommandSession, offer: Omit<Fields<"OFFER">, "offerId">): Promise<number>
  withdrawOffer(offerId: number): void
  /** What is deposited for a service is its owner's. @throws MvmError `refused` when that is another user */
  claimService(session: CommandSession, service: string, uid: number): void
  /** The command is gone: so are its offers, and service names that it registered may be others'. */
  forgetSession(session: CommandSession): void
  registerChannel(session: CommandSession, channel: AgentChannel): void
  forgetChannel(key: string): void
  toMvm<N extends "KICK" | "CLOSE" | "ABORT" | "CANCEL">(name: N, fields: Fields<N>): void
}

export class CommandSession {
  channel: AgentChannel | undefined
  /** Set where the agent carries the channel's records. */
  carrier: Carrier | undefined
  readonly #host: SessionHost
  /** It is the agent itself that speaks. */
  readonly isOwn: boolean
  readonly #socket: ByteSocket
  readonly #program: Program
  readonly #link: LocalLink<"agent">
  #allocRequest: number | undefined
  #offerShare: Uint8Array | undefined
  #challenge: Fields<"CHALLENGE"> | undefined
  #offered: Omit<LocalFields<"OFFER">, "share"> | undefined
  #busy = false
  /** It offered or asked already. */
  #isMeeting = false
  #ended = false
  #failed = false
  readonly #gone = new AbortController()
  #finished = Promise.resolve()
  #deposits: DepositSession | undefined

  constructor(host: SessionHost, socket: ByteSocket, who: { program: Program; isOwn: boolean }) {
    this.#host = host
    this.#socket = socket
    this.#program = who.program
    this.isOwn = who.isOwn
    this.#link = new LocalLink(
      "agent",
      (bytes) => socket.write(bytes),
      (message) => this.#handle(message),
    )
  }

  receive(chunk: Uint8Array): void {
    try {
      this.#link.receive(chunk)
    } catch (error) {
      this.#fail(asMvmError(error))
    }
  }

  /** The command is gone: so is everything it asked for. */
  ended(): void {
    if (this.#ended) return
    this.#ended = true
    this.#gone.abort()
    this.#host.forgetSession(this)
    this.#deposits?.ended()
    if (this.#allocRequest !== undefined) this.#host.toMvm("CANCEL", { cancels: this.#allocRequest })
    const { channel } = this
    // Its last FIN or RECEIPT may still be with the vTPM.
    if (channel) void this.#finished.finally(() => this.#leave(channel, "ABORT", "the command ended"))
  }

  /** The MVM asks the waiting command's VM to prove itself. */
  async challenged(message: NamedMessage<"CHALLENGE">): Promise<void> {
    if (!this.#offerShare || this.#challenge) throw new MvmError("refused", "the offer is gone")
    this.#challenge = message.fields
    await this.#host.channels.answer(message, this.#offerShare, this.#program)
  }

  async granted(message: NamedMessage<"GRANT">): Promise<void> {
    if (!this.#offerShare || !this.#challenge) throw new MvmError("refused", "no such challenge")
    const channel = await this.#host.channels.accept(message, this.#challenge, this.#offerShare)
    this.#deliver(channel)
  }

  get challengedChannel(): Uint8Array | undefined {
    return this.#challenge?.channelId
  }

  /** The MVM (or the peer, through it) says something about the channel. */
  tell<N extends LocalName>(name: N, fields: LocalFields<N>): void {
    if (!this.#ended) this.#link.send(name, fields)
  }

  /** The other end has something for this one, or room. */
  kicked(): void {
    if (this.carrier) this.carrier.kicked?.()
    else if (!this.#ended) this.#link.kick()
  }

  /** Nothing that comes after this is released. */
  revoked(message: string): void {
    this.#host.carriers.end(this.carrier)
    this.tell("REVOKE", { message })
  }

  peerEnd(message: PeerEnd): void {
    if (!this.channel) return
    this.#host.channels.verifyPeerEnd(this.channel, message)
    const { direction, lengthBytes, records, digest, content } = message.fields
    this.tell(message.name, { direction, lengthBytes, records, digest, content })
  }

  /**
   * A channel that was being opened for the waiting command will not be. What only the asker did is no reason to end
   * the wait: another may ask.
   */
  notOpened(error: MvmError): void {
    const isOwn = error.status === STATUS.attestation && error.code !== "peer_untrusted"
    if (isOwn || this.channel || !this.#offered) this.#fail(error)
    else this.offerAgain()
  }

  /** Whatever the session waits for cannot come any more. */
  lost(error: MvmError): void {
    this.#fail(error)
  }

  #handle(message: LocalMessage<"client">): void {
    switch (message.name) {
      case "STATUS":
        return this.#start(async () => {
          this.tell("STATE", { json: clip(await this.#host.statusJson(this.#program), 32000) })
        })
      case "STANDING":
        return this.#start(async () => this.tell("STATE", { json: await this.#host.standingJson() }))
      case "PEERS": {
        const { after } = message.fields
        return this.#start(async () => this.tell("PEER_LIST", await this.#host.peers(this.#program, after)))
      }
      case "OPEN":
        this.#meetOnce()
        return this.#start(() => this.#open(message.fields))
      case "OFFER":
        this.#meetOnce()
        return this.#start(() => this.#offer(message.fields))
      case "KICK":
        return this.#host.toMvm("KICK", this.#mustHave().kick)
      case "RECORD":
        if (message.fields.more) throw new MvmError("protocol", "RECORD.more: a command's records are whole")
        return this.#mustCarry().fromCommand(message.fields.record)
      case "CREDIT":
        return this.#mustCarry().takenByCommand(message.fields.taken)
      case "DEPOSIT":
      case "DEPOSIT_DATA":
      case "DEPOSIT_FINISH":
      case "COLLECT":
      case "DELIVERED":
        return this.#depositing().handle(message)
      case "FIN":
      case "RECEIPT":
        return this.#end(message.name, message.fields)
      case "CLOSE":
        return this.#leave(this.#mustHave(), "CLOSE", "")
      case "ABORT":
        return this.#leave(this.#mustHave(), "ABORT", message.fields.message, message.fields.code)
    }
  }

  #depositing(): DepositSession {
    if (this.channel || this.#busy) throw new MvmError("protocol", "one request at a time")
    this.#deposits ??= new DepositSession(this.#host.deposits, this.#program, {
      tell: (name, fields) => this.tell(name, fields),
      fail: (error) => this.#fail(error),
      claimService: (service) => this.#host.claimService(this, service, this.#program.uid),
    })
    return this.#deposits
  }

  /** A connection waits or asks for one channel in its life: an offer that another replaced would be nobody's. */
  #meetOnce(): void {
    if (this.#isMeeting) throw new MvmError("protocol", "one channel a connection")
    this.#isMeeting = true
  }

  #start(work: () => Promise<void>): void {
    if (this.#busy || this.channel) throw new MvmError("protocol", "one request at a time")
    this.#busy = true
    work()
      .catch((error: unknown) => this.#fail(asMvmError(error)))
      .finally(() => (this.#busy = false))
  }

  async #open(fields: LocalFields<"OPEN">): Promise<void> {
    const caller: Caller = {
      program: this.#program,
      gone: this.#gone.signal,
      onStages: (stages) => this.tell("STAGES", stages),
    }
    const channel = await this.#host.channels.open(fields, caller, (requestId) => {
      this.#allocRequest = requestId
    })
    this.#allocRequest = undefined
    this.#deliver(channel)
  }

  async #offer(fields: LocalFields<"OFFER">): Promise<void> {
    const { share, ...offered } = fields
    this.#offerShare = share
    this.#offered = offered
    await this.#register(offered)
    this.tell("OFFERED", {})
  }

  async #register({ service, source, role }: Omit<LocalFields<"OFFER">, "share">): Promise<void> {
    this.#challenge = undefined
    const offerId = await this.#host.registerOffer(this, { service, source, role, program: this.#program })
    if (this.#ended) this.#host.withdrawOffer(offerId)
  }

  /** A channel that was not open yet is nothing any more, as after a restart of the MVM: the command waits again. */
  offerAgain(): void {
    if (!this.#challenge || !this.#offered || this.channel) return
    this.#register(this.#offered).catch((error: unknown) => this.#fail(asMvmError(error)))
  }

  #deliver(channel: AgentChannel): void {
    if (this.#ended || this.#failed) {
      this.#host.toMvm("ABORT", {
        channelId: channel.channelId,
        code: "aborted",
        message: "the command ended",
      })
      return
    }
    this.channel = channel
    this.#host.registerChannel(this, channel)
    try {
      this.#hand(channel)
    } catch (error) {
      this.#fail(asMvmError(error))
    }
  }

  /** The channel is the command's from here on. @throws MvmError when its memory cannot be mapped here. */
  #hand(channel: AgentChannel): void {
    const { carriers } = this.#host
    const isMapped = channel.region !== undefined && carriers.mayMap(this.#program.uid)
    this.tell("CHANNEL", {
      channelId: channel.channelId,
      asker: channel.asker,
      decision: channel.decision,
      laddress: channel.grant.laddress,
      region: isMapped ? channel.region : undefined,
      peerShare: channel.peerShare,
      acceptSignature: channel.acceptSignature,
      openSignature: channel.openSignature,
      leaseMs: channel.leaseMs,
    })
    if (!isMapped) {
      this.carrier = carriers.begin(channel, {
        uid: this.#program.uid,
        command: {
          record: (record) => this.#tellRecord(record),
          taken: (taken) => this.tell("CREDIT", { taken }),
          fail: (error) => this.#fail(asMvmError(error)),
        },
        kick: () => this.#host.toMvm("KICK", channel.kick),
      })
    }
    for (const message of channel.early) this.peerEnd(message)
  }

  #tellRecord(record: Uint8Array): void {
    for (let at = 0; at < record.length; at += MAX_RELAYED_BYTES) {
      const more = at + MAX_RELAYED_BYTES < record.length
      this.tell("RECORD", { record: record.subarray(at, at + MAX_RELAYED_BYTES), more })
    }
  }

  #end(name: "FIN" | "RECEIPT", fields: EndFields): void {
    const channel = this.#mustHave()
    this.#finished = this.#finished
      .then(() => this.#host.channels.end(name, channel, fields, this.#gone.signal))
      .then(() => this.tell("LOGGED", {}))
      .catch((error: unknown) => this.#fail(asMvmError(error)))
  }

  #leave(channel: AgentChannel, how: "CLOSE" | "ABORT", reason: string, code = "aborted"): void {
    if (this.channel !== channel) return
    this.channel = undefined
    this.#host.carriers.end(this.carrier)
    this.carrier = undefined
    this.#offerShare = undefined
    this.#challenge = undefined
    this.#host.forgetChannel(channel.key)
    const { channelId } = channel
    if (how === "CLOSE") this.#host.toMvm("CLOSE", { channelId })
    else this.#host.toMvm("ABORT", { channelId, code, message: clip(reason, 1000) })
  }

  #mustCarry(): Carrier {
    if (!this.carrier) throw new MvmError("protocol", "the agent carries no records on this connection")
    return this.carrier
  }

  #mustHave(): AgentChannel {
    if (!this.channel) throw new MvmError("protocol", "no channel is open on this connection")
    return this.channel
  }

  #fail(error: MvmError): void {
    if (this.#ended || this.#failed) return
    this.#failed = true
    this.#host.carriers.end(this.carrier)
    this.#link.send("FAILED", {
      code: error.code,
      message: clip(error.message, 1000),
      hint: error.hint === undefined ? undefined : clip(error.hint, 500),
    })
    // A command that has a channel may be writing into its region: the region is let go when the command closes.
    // One that is in the middle of a deposit would, as it still writes, not read why.
    if (!this.channel && !this.#deposits) this.#socket.finish()
  }
}
