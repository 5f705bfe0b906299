/**
 * @module mvm/hub
 *
 * The links of all members: a socket a member, the HELLO handshake on it, and the way from a message to the
 * broker. A socket that ends keeps the member and its channels: the agent comes back with another HELLO.
 *
 * Trust: everything that arrives here is hostile. A member can fill neither the MVM's memory (bounded backlog,
 * bounded frames, bounded requests) nor its time (its share of it, see fair-share).
 */

import { x25519Generate, x25519Shared, random } from "../lib/crypto.ts"
import { MvmError, asMvmError } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import { peerCredentials } from "../platform/posix.ts"
import { connectUnix, listenUnix, type ByteSocket, type UnixListener } from "../platform/unix-socket.ts"
import { GrantSealer } from "../tcb/grant.ts"
import { linkKeys, welcomeMessage } from "../tcb/link-handshake.ts"
import { BulkQueue, STREAM_LOW_BYTES, UNREAD_BYTES } from "../wire/bulk-queue.ts"
import { Link, type LinkMessage, type NamedMessage } from "../wire/link.ts"
import { PROTOCOL_VERSION } from "../wire/messages.ts"
import { FairShares } from "./fair-share.ts"
import type { Member } from "./member.ts"
import { uuidBytes } from "./session.ts"
import type { VmRecord } from "./state/registry.ts"
import type { MvmIdentity } from "./state/state-dir.ts"
import { TokenBucket } from "./token-bucket.ts"
import { Verifier } from "./verifier.ts"

/** A guest that reads nothing for this long's worth of answers is cut off. */
const LINK_BACKLOG_BYTES = 1024 * 1024
const CONNECT_PERIOD_MS = 250

/** An agent that lives comes back within half a second; after a start of the MVM it may be busy otherwise. */
const ABSENT_MS = 3000
const ABSENT_AT_START_MS = 10_000

/** HELLOs of one member that are answered at once, and a second: each costs a signature and a key agreement. */
const HELLOS = 16
const HELLOS_PER_SECOND = 5

export interface HubHandlers {
  /** The agent proved that it holds the keys of a new epoch: older channels of the member may be gone. */
  onEpoch(member: Member): void
  onMessage(member: Member, message: LinkMessage): void
  /** A local endpoint's agent starts and wants a new vTPM boot before its HELLO. */
  onBoot(member: Member): Promise<void>
  onDisconnect(member: Member): void
  /** The link was down for longer than a living agent needs to come back. */
  onAbsent(member: Member): void
  /**
   * A process connected to the link of a VM whose QEMU others start. @returns whether it is that QEMU, in a boot that
   * the MVM can vouch for
   */
  onQemu(record: VmRecord, pid: number): Promise<boolean>
}

interface Entry {
  member: Member
  stopped: boolean
  absent?: ReturnType<typeof setTimeout>
  listener?: UnixListener
}

export class Hub {
  readonly #entries = new Map<string, Entry>()
  readonly #shares = new FairShares()
  readonly #handlers: HubHandlers
  readonly #identity: MvmIdentity
  readonly #measurement: Uint8Array
  readonly #log: Log

  /** @param measurement 32 bytes: what the MVM itself runs */
  constructor(identity: MvmIdentity, measurement: Uint8Array, log: Log, handlers: HubHandlers) {
    this.#identity = identity
    this.#measurement = measurement
    this.#log = log
    this.#handlers = handlers
  }

  members(): Member[] {
    return [...this.#entries.values()].map((entry) => entry.member)
  }

  byUuid(uuid: string): Member | undefined {
    return this.#entries.get(uuid)?.member
  }

  byName(name: string): Member | undefined {
    return this.members().find((member) => member.record.name === name)
  }

  /** The settings or tags of a VM changed. */
  update(record: VmRecord): void {
    const member = this.byUuid(record.uuid)
    if (member) member.record = record
  }

  /** Keep a link to `record`'s VM from now on: connect to QEMU's socket, or listen for a local agent. */
  attach(record: VmRecord, socketPath: string, verifier: Verifier): Member {
    const existing = this.#entries.get(record.uuid)
    if (existing) return existing.member
    const member = this.#makeMember(record, verifier)
    const entry: Entry = { member, stopped: false }
    this.#entries.set(record.uuid, entry)
    if (record.kind !== "qemu") {
      const onConnection = (socket: ByteSocket): void => {
        if (record.kind === "local") this.#adopt(member, socket)
        else void this.#adoptKnown(entry, socket)
      }
      entry.listener = listenUnix(socketPath, 0o600, onConnection, LINK_BACKLOG_BYTES)
    } else {
      void this.#keepConnected(entry, socketPath)
    }
    this.#awaitReturn(entry, ABSENT_AT_START_MS)
    return member
  }

  /** Forget a member; its link is closed. */
  detach(uuid: string): void {
    const entry = this.#entries.get(uuid)
    if (!entry) return
    entry.stopped = true
    clearTimeout(entry.absent)
    entry.listener?.close()
    entry.member.socket?.close()
    this.#entries.delete(uuid)
  }

  /** What the member sent and was not handled yet is void, and so is its session. */
  cut(uuid: string): void {
    this.byUuid(uuid)?.socket?.close()
  }

  close(): void {
    for (const uuid of [...this.#entries.keys()]) this.detach(uuid)
  }

  #makeMember(record: VmRecord, verifier: Verifier): Member {
    const hello = { current: undefined as NamedMessage<"HELLO"> | undefined }
    const hellos = new TokenBucket(HELLOS, HELLOS_PER_SECOND)
    const member: Member = {
      record,
      verifier,
      offers: new Map(),
      socket: undefined,
      session: undefined,
      bulk: new BulkQueue(
        {
          ready: () =>
            member.session !== undefined && (member.socket?.backlogBytes ?? Infinity) < STREAM_LOW_BYTES,
          send: (name, fields) => member.link.send(name, fields),
        },
        UNREAD_BYTES,
      ),
      link: new Link("mvm", (bytes) => member.socket?.write(bytes), {
        onOpenMessage: (message) => {
          if (message.name === "HELLO") {
            if (hellos.take() && this.#welcome(member, message)) hello.current = message
          } else if (message.name === "BOOT" && record.kind === "local") {
            void this.#boot(member)
          }
        },
        onEpoch: (epoch) => {
          const said = hello.current
          if (!said) return
          member.offers.clear()
          member.bulk.clear()
          const recipient = { recipientUuid: uuidBytes(member.record.uuid), epoch }
          const grants = new GrantSealer(member.record.keys.sealing, recipient)
          member.session?.grants.wipe()
          member.session = {
            epoch,
            grants,
            bootId: said.fields.bootId.toHex(),
            kind: record.kind === "local" ? "agent" : "kernel",
            canMap: false,
            mapping: "",
            isReady: false,
            sinceMs: Date.now(),
          }
          member.verifier.beginEpoch(member.session)
          this.#handlers.onEpoch(member)
        },
        onMessage: (message) => this.#handlers.onMessage(member, message),
      }),
    }
    return member
  }

  async #boot(member: Member): Promise<void> {
    try {
      await this.#handlers.onBoot(member)
      member.link.send("POKE", {})
    } catch (error) {
      this.#log.error("vtpm_boot_failed", { vm: member.record.name, message: asMvmError(error).message })
      member.socket?.close()
    }
  }

  /** @returns whether the HELLO was answered */
  #welcome(member: Member, hello: NamedMessage<"HELLO">): boolean {
    const { fields } = hello
    if (fields.version !== PROTOCOL_VERSION) {
      this.#log.warn("link_version", { vm: member.record.name, version: fields.version })
      return false
    }
    try {
      const pair = x25519Generate()
      const transcript = {
        version: PROTOCOL_VERSION,
        vmUuid: uuidBytes(member.record.uuid),
        vmName: member.record.name,
        epoch: random(16),
        guestNonce: fields.guestNonce,
        guestShare: fields.guestShare,
        mvmShare: pair.publicKey,
        bootId: fields.bootId,
        mvmMeasurement: this.#measurement,
      }
      const keys = linkKeys(x25519Shared(pair.privateKey, fields.guestShare), transcript)
      pair.privateKey.fill(0)
      member.link.offerKeys(transcript.epoch, keys.toGuest, keys.toMvm)
      for (const key of Object.values(keys)) key.fill(0)
      member.link.send("WELCOME", {
        version: PROTOCOL_VERSION,
        vmUuid: transcript.vmUuid,
        vmName: transcript.vmName,
        epoch: transcript.epoch,
        mvmShare: transcript.mvmShare,
        mvmMeasurement: transcript.mvmMeasurement,
        signature: this.#identity.sign(welcomeMessage(transcript)),
      })
      return true
    } catch (error) {
      if (!(error instanceof MvmError)) throw error
      this.#log.warn("hello_refused", { vm: member.record.name, message: error.message })
      return false
    }
  }

  /** Whoever connects to the link of a VM that others start must be its QEMU. What it says meanwhile is lost. */
  async #adoptKnown({ member }: Entry, socket: ByteSocket): Promise<void> {
    socket.handlers = { onData: () => {}, onClose: () => {} }
    try {
      const isQemu = await this.#handlers.onQemu(member.record, peerCredentials(socket.fd).pid)
      if (isQemu && !socket.closed) return this.#adopt(member, socket)
    } catch (error) {
      this.#log.error("link_adopt", { vm: member.record.name, message: asMvmError(error).message })
    }
    socket.close()
  }

  #adopt(member: Member, socket: ByteSocket): void {
    member.socket?.close()
    member.socket = socket
    const share = this.#shares.join({
      handle: (bytes) => member.link.receive(bytes),
      pause: (isPaused) => socket.pause(isPaused),
    })
    socket.handlers = {
      onData: (chunk) => share.deliver(chunk),
      onClose: () => {
        this.#shares.leave(share)
        if (member.socket !== socket) return
        member.socket = undefined
        this.#lost(member)
      },
      onDrain: () => member.bulk.pump(),
    }
    // An agent that is already up may not know that the MVM is back; a local one begins by itself.
    if (member.record.kind !== "local") member.link.send("POKE", {})
  }

  /** The agent of a VM let go of its port: QEMU's end of the link stays, and says nothing of it. */
  portClosed(uuid: string): void {
    const member = this.byUuid(uuid)
    if (member?.session) this.#lost(member)
  }

  #lost(member: Member): void {
    member.offers.clear()
    member.bulk.clear()
    member.session?.grants.wipe()
    member.session = undefined
    member.link.reset(new MvmError("unreachable", `the link to ${member.record.name} was lost`))
    this.#handlers.onDisconnect(member)
    const entry = this.#entries.get(member.record.uuid)
    if (entry) this.#awaitReturn(entry, ABSENT_MS)
  }

  /** A link that ended is the end of the agent, unless it comes back soon. */
  #awaitReturn(entry: Entry, withinMs: number): void {
    clearTimeout(entry.absent)
    entry.absent = setTimeout(() => {
      if (!entry.stopped && !entry.member.session) this.#handlers.onAbsent(entry.member)
    }, withinMs)
    entry.absent.unref()
  }

  async #keepConnected(entry: Entry, socketPath: string): Promise<void> {
    while (!entry.stopped) {
      if (!entry.member.socket) {
        try {
          const socket = await connectUnix(socketPath, undefined, LINK_BACKLOG_BYTES)
          if (entry.stopped) return socket.close()
          this.#adopt(entry.member, socket)
        } catch (error) {
          if (asMvmError(error).code !== "unreachable") {
            this.#log.warn("link_connect", {
              vm: entry.member.record.name,
              message: asMvmError(error).message,
            })
          }
        }
      }
      await Bun.sleep(CONNECT_PERIOD_MS)
    }
  }
}
