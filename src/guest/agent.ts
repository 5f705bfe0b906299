/**
 * @module guest/agent
 *
 * The guest daemon: one link to the MVM, one vTPM, one local socket for any number of commands.
 */

import { toHex } from "../lib/bytes.ts"
import { MvmError, asMvmError } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import { VERSION } from "../lib/version.ts"
import { NO_BINDING } from "../tcb/binding.ts"
import { clip, errorFromPeer, type Fields, type LinkMessage, type NamedMessage } from "../wire/link.ts"
import { LOG_CHUNK_BYTES, type Program } from "../wire/messages.ts"
import { AgentChannels, type AgentChannel } from "./agent-channels.ts"
import { AgentOffers } from "./agent-offers.ts"
import type { AgentParts } from "./agent-parts.ts"
import { Carriers } from "./carriers/carriers.ts"
import { CommandDoor, refuseSecondAgent } from "./command-door.ts"
import { CommandSession, type SessionHost } from "./command-session.ts"
import type { Environment } from "./environment.ts"
import { AgentDeposits } from "./deposits/agent-deposits.ts"
import { EvidenceMaker } from "./evidence.ts"
import { Grants } from "./grants.ts"
import { regionOfGrant, type Memory } from "./guest-memory.ts"
import { LinkClient, type Membership } from "./link-client.ts"
import type { MeasurementSource } from "./measurement-source.ts"
import { PingResponder } from "./ping/responder.ts"
import { GuestVtpm } from "./vtpm.ts"

const ANSWER_MS = 10_000

export interface AgentOptions {
  readonly environment: Environment
  readonly log: Log
  /** The group whose users may use channels; undefined: only the agent's own user */
  readonly gid: number | undefined
  /** Fires when the agent is to end, also while it waits for an MVM. */
  readonly stopping: AbortSignal
  /** The vTPM is gone (a local endpoint's): nothing can be proven any more in this life. */
  onVtpmLost(error: MvmError): void
  /** The operator stopped this local endpoint. */
  onStopped(reason: string): void
}

export class Agent implements SessionHost {
  readonly channels: AgentChannels
  readonly carriers: Carriers
  readonly deposits: AgentDeposits
  readonly log: Log
  readonly #environment: Environment
  readonly #vtpm: GuestVtpm
  readonly #source: MeasurementSource
  readonly #client: LinkClient
  readonly #evidence: EvidenceMaker
  readonly #grants: Grants
  readonly #door: CommandDoor
  readonly #pings: PingResponder
  readonly #offers: AgentOffers
  readonly #channels = new Map<string, { session: CommandSession; channel: AgentChannel }>()
  readonly #options: AgentOptions
  #arena: Memory
  readonly #startedMs = Date.now()

  private constructor(options: AgentOptions, vtpm: GuestVtpm, source: MeasurementSource) {
    this.log = options.log
    this.#environment = options.environment
    this.#options = options
    this.#vtpm = vtpm
    this.#source = source
    this.#door = new CommandDoor({
      source,
      log: options.log,
      open: (socket, who) => new CommandSession(this, socket, who),
    })
    const { memory } = options.environment
    this.#arena = memory.arena(undefined)
    this.#client = new LinkClient({
      bootId: options.environment.bootId,
      kind: options.environment.kind,
      agentVersion: `mvm ${VERSION}`,
      mvmPublicKey: vtpm.mvmPublicKey,
      log: options.log,
      openStream: (handlers) => options.environment.openStream(handlers),
      ready: () => ({
        canMap: "how" in this.#arena,
        mapping: this.#mapping(),
        channels: [...this.#channels.values()].map(({ channel }) => ({
          channelId: channel.channelId,
          transcript: channel.transcript,
        })),
      }),
      onLinked: (membership, kept) => this.#linked(membership, kept),
      onLost: () => this.#grants.end(),
      onMessage: (message) => this.#fromMvm(message),
    })
    this.#offers = new AgentOffers(this.#client, options.log)
    this.#pings = new PingResponder({
      socketPath: options.environment.socketPath,
      log: options.log,
      linked: (gone) => this.#client.linked(Infinity, gone),
    })
    this.carriers = new Carriers(this.#client.bulk)
    this.#grants = new Grants(vtpm)
    this.#evidence = new EvidenceMaker(vtpm, source, this.#client.link)
    const parts: AgentParts = {
      client: this.#client,
      vtpm,
      evidence: this.#evidence,
      grants: this.#grants,
      regionOf: (grant) => regionOfGrant(memory, this.#arena, grant),
    }
    this.channels = new AgentChannels(parts)
    this.deposits = new AgentDeposits({
      ...parts,
      mapsMemory: () => "how" in this.#arena,
      deliveredPath: (uuid) => options.environment.deliveredPath(uuid),
    })
  }

  /**
   * @throws MvmError `busy` when an agent already runs here, `tpm` for a vTPM no MVM prepared, `setup` when
   *   this machine lacks something.
   */
  static async start(options: AgentOptions): Promise<Agent> {
    await refuseSecondAgent(options.environment.socketPath)
    const { stopping } = options
    const transport = await options.environment.openTpm({
      onLost: (error) => options.onVtpmLost(error),
      stopping,
    })
    const vtpm = await GuestVtpm.open(transport)
    const source = await options.environment.measurementSource(vtpm)
    const agent = new Agent(options, vtpm, source)
    // The agent itself is the first program that a local endpoint measures. In a VM the kernel did that, and its
    // digest, which commands of the same file need, can come while the link is made.
    const self = agent.#door.identify(process.pid, process.geteuid?.() ?? 0)
    if (source.kind === "agent") await self
    else self.catch((error: unknown) => agent.log.warn("self", { message: asMvmError(error).message }))
    agent.#door.listen({ path: options.environment.socketPath, gid: options.gid })
    void agent.#client.run()
    agent.#pings.start()
    return agent
  }

  stop(): void {
    this.#pings.stop()
    this.#door.close()
    for (const { channel } of this.#channels.values()) {
      this.toMvm("ABORT", { channelId: channel.channelId, code: "aborted", message: "the agent stopped" })
    }
    this.#client.stop()
    this.#grants.end()
    this.#vtpm.close()
  }

  /** One line for people. */
  get summary(): string {
    const name = this.#client.membership?.vmName
    if (name === undefined) return "waiting for the MVM"
    return `linked as ${name}, ${this.#channels.size} channels, ${this.#offers.services.length} offers`
  }

  async statusJson(program: Program): Promise<string> {
    const { membership } = this.#client
    return JSON.stringify({
      version: VERSION,
      linked: membership !== undefined,
      name: membership?.vmName ?? null,
      uuid: membership ? toHex(membership.vmUuid) : null,
      epoch: membership ? toHex(membership.epoch) : null,
      bootId: toHex(this.#environment.bootId),
      measurement: this.#environment.kind,
      mapping: this.#mapping(),
      memoryBytes: "how" in this.#arena ? this.#arena.lengthBytes : 0,
      mappings: this.#environment.memory.probes(),
      transport: "how" in this.#arena ? "memory" : "relay",
      channels: this.#channels.size,
      offers: this.#offers.services,
      deposits: await this.deposits.summary(program),
      uptimeSeconds: Math.round((Date.now() - this.#startedMs) / 1000),
    })
  }

  /** What the MVM thinks of this member, and how far its clock is ahead of ours. @throws MvmError when it is away */
  async standingJson(): Promise<string> {
    const askedMs = Date.now()
    const answer = await this.#client.link.request("STANDING", {}, "OPINION", { timeoutMs: ANSWER_MS })
    const { verdict, timeMs } = answer.fields
    return JSON.stringify({ verdict, clockAheadMs: Math.round(timeMs - (askedMs + Date.now()) / 2) })
  }

  async peers(program: Program, after: string | undefined): Promise<Fields<"PEER_LIST">> {
    const asked = { program, after }
    const { fields } = await this.#client.link.request("PEERS", asked, "PEER_LIST", { timeoutMs: ANSWER_MS })
    return fields
  }

  /** How the memory is mapped, or why it is not. */
  #mapping(): string {
    return "how" in this.#arena ? this.#arena.how : clip(`none: ${this.#arena.why}`, 128)
  }

  async registerOffer(session: CommandSession, offer: Omit<Fields<"OFFER">, "offerId">): Promise<number> {
    this.channels.membership()
    return this.#offers.register(session, offer)
  }

  claimService(session: CommandSession, service: string, uid: number): void {
    this.#offers.names.claim(service, uid, session)
  }

  forgetSession(session: CommandSession): void {
    for (const offerId of this.#offers.of(session)) this.withdrawOffer(offerId)
    this.#offers.names.release(session)
  }

  withdrawOffer(offerId: number): void {
    if (this.#offers.take(offerId)) this.#send("WITHDRAW", { offerId })
  }

  registerChannel(session: CommandSession, channel: AgentChannel): void {
    this.#channels.set(channel.key, { session, channel })
  }

  forgetChannel(key: string): void {
    this.#channels.delete(key)
  }

  toMvm<N extends "KICK" | "CLOSE" | "ABORT" | "CANCEL">(name: N, fields: Fields<N>): void {
    this.#send(name, fields)
  }

  #linked(membership: Membership, kept: readonly Uint8Array[]): void {
    this.#grants.begin(membership)
    this.#arena = this.#environment.memory.arena(membership.memory)
    const keptKeys = new Set(kept.map(toHex))
    for (const [key, { session }] of [...this.#channels]) {
      if (keptKeys.has(key)) session.carrier?.relinked?.()
      else session.lost(new MvmError("aborted", "the MVM no longer knows this channel"))
    }
    this.#offers.again()
    for (const session of this.#door.sessions) session.offerAgain()
    this.log.info("linked", { name: this.#client.membership?.vmName, mapping: this.#mapping() })
  }

  #fromMvm(message: LinkMessage): void {
    switch (message.name) {
      case "PING":
        return this.#client.link.send("DONE", {}, message.requestId)
      case "MEASURE":
        return this.#measure(message)
      case "EVENTS":
        return this.#events(message)
      case "MEMORY":
        return this.#answering(message.requestId, async () => {
          await this.#environment.memory.dedicated({ ...message.fields, path: "" })
          this.#client.link.send("DONE", {}, message.requestId)
        })
      case "CHALLENGE":
        return this.#challenge(message)
      case "GRANT":
        return this.#grant(message)
      case "LEASE":
        for (const id of message.fields.channels) {
          this.#channels.get(toHex(id))?.session.tell("LEASE", { leaseMs: message.fields.leaseMs })
        }
        return
      case "KICK":
        return this.#sessionOf(message.fields.channelId)?.kicked()
      case "RECORD":
      case "CREDIT":
      case "RESUME":
        return this.#sessionOf(message.fields.channelId)?.carrier?.fromPeer?.(message)
      case "FIN":
      case "RECEIPT": {
        const session = this.#sessionOf(message.fields.channelId)
        return session ? session.peerEnd(message) : this.channels.openings.hold(message)
      }
      case "STAGES":
        return this.channels.openings.told(message.fields)
      case "REVOKE":
        return this.#revoked(message.fields)
      case "ABORT":
        return this.#aborted(message.fields)
      case "STOP":
        // A VM is stopped by its MVM's other means.
        if (this.#environment.kind === "agent") this.#options.onStopped(message.fields.reason)
        return
      default:
        this.log.debug("unexpected", { message: message.name })
    }
  }

  #measure(message: NamedMessage<"MEASURE">): void {
    const { nonce, logOffset } = message.fields
    this.#answering(message.requestId, async () => {
      await this.#evidence.make(
        this.channels.membership(),
        { purpose: "periodic", nonce, binding: NO_BINDING, logOffset },
        (quote) => this.#client.link.send("MEASURED", { quote }, message.requestId),
      )
    })
  }

  #events({ requestId, fields: { offset } }: NamedMessage<"EVENTS">): void {
    this.#answering(requestId, async () => {
      const all = this.#source.readEvents()
      const events = all.subarray(offset, offset + LOG_CHUNK_BYTES)
      this.#client.link.send("EVENT_LOG", { totalBytes: all.length, offset, events }, requestId)
    })
  }

  #challenge(message: NamedMessage<"CHALLENGE">): void {
    const offer = this.#offers.take(message.fields.offerId)
    this.#answering(message.requestId, async () => {
      if (!offer) throw new MvmError("no_receiver", "the receiver has gone")
      const { service, source } = offer.fields
      if (
        service !== message.fields.service ||
        (source ?? message.fields.sourceName) !== message.fields.sourceName
      ) {
        throw new MvmError("protocol", "CHALLENGE: not what was offered")
      }
      await offer.session.challenged(message)
    })
  }

  #grant(message: NamedMessage<"GRANT">): void {
    this.#answering(message.requestId, async () => {
      const session = this.#challengedBy(message.fields.channelId)
      if (!session) throw new MvmError("no_receiver", "the receiver has gone")
      await session.granted(message)
    })
  }

  #answering(requestId: number, work: () => Promise<void>): void {
    work().catch((error: unknown) => {
      const failure = asMvmError(error)
      this.log.warn("refused", { code: failure.code, message: failure.message })
      try {
        this.#client.link.fail(requestId, failure)
      } catch {
        // The link is gone; the MVM has given up on the request already.
      }
    })
  }

  #aborted({ channelId, code, message }: Fields<"ABORT">): void {
    const error = errorFromPeer(code, message)
    const session = this.#sessionOf(channelId)
    if (session) session.lost(error)
    else this.#neverCame(channelId, error)
  }

  #revoked({ channelId, message }: Fields<"REVOKE">): void {
    const session = this.#sessionOf(channelId)
    if (session) session.revoked(message)
    else this.#neverCame(channelId, new MvmError("revoked", message))
  }

  /** A channel that ended before its command had it. It is disowned, so that its region is free again. */
  #neverCame(channelId: Uint8Array, error: MvmError): void {
    if (this.channels.openings.end(channelId, error)) return
    this.#challengedBy(channelId)?.notOpened(error)
    this.channels.disown(channelId)
  }

  #challengedBy(channelId: Uint8Array): CommandSession | undefined {
    const key = toHex(channelId)
    for (const session of this.#door.sessions) {
      if (session.challengedChannel && toHex(session.challengedChannel) === key) return session
    }
    return undefined
  }

  #sessionOf(channelId: Uint8Array): CommandSession | undefined {
    return this.#channels.get(toHex(channelId))?.session
  }

  #send<N extends LinkMessage["name"]>(name: N, fields: Fields<N>): void {
    try {
      this.#client.link.send(name, fields)
    } catch (error) {
      this.log.debug("not_sent", { name, message: asMvmError(error).message })
    }
  }
}
