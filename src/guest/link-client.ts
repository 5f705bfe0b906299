/**
 * @module guest/link-client
 *
 * The agent's end of the link. It says HELLO until an MVM answers that signs with the key pinned in the vTPM,
 * and again whenever the link is silent, was reset, or the MVM asks for it. It never gives up.
 *
 * ```
 *            open stream            WELCOME verified         SETTINGS
 *   closed ─────────────► greeting ──────────────► proving ───────────► linked
 *      ▲                     ▲ HELLO every second                          │
 *      └──── stream ends ────┴──────── POKE, no PONG, desync ──────────────┘
 * ```
 *
 * Trust: everything that arrives is hostile until it verifies; HELLOs are rate limited, so a flood of POKEs
 * costs nothing.
 */

import { equalBytes } from "../lib/bytes.ts"
import { p256Verify, random, x25519Generate, x25519Shared, type KeyPair } from "../lib/crypto.ts"
import { MvmError, asMvmError } from "../lib/errors.ts"
import type { Log } from "../lib/log.ts"
import type { ByteStream, StreamHandlers } from "../platform/virtio-port.ts"
import { linkKeys, welcomeMessage } from "../tcb/link-handshake.ts"
import { BulkQueue, READ_STEP_BYTES, STREAM_LOW_BYTES } from "../wire/bulk-queue.ts"
import { Link, type Fields, type LinkMessage, type NamedMessage } from "../wire/link.ts"
import { PROTOCOL_VERSION } from "../wire/messages.ts"

const HELLO_PERIOD_MS = 1000
const HELLO_MIN_GAP_MS = 100
const PING_PERIOD_MS = 10_000
const ANSWER_MS = 5_000
const REOPEN_MS = 500
const MAX_TIMER_MS = 2 ** 31 - 1

/** Who this member is, in the MVM's words, for one epoch. */
export interface Membership {
  readonly vmUuid: Uint8Array
  readonly vmName: string
  readonly epoch: Uint8Array
  /** 32 bytes: what the MVM runs, as it says */
  readonly mvmMeasurement: Uint8Array
  readonly leaseMs: number
  /** Path of the shared memory, for a local endpoint; empty in a VM. */
  readonly memory: string
  /** 65-byte point: the key of this epoch's grants, encapsulated to the vTPM */
  readonly enc: Uint8Array
}

export interface LinkClientOptions {
  readonly bootId: Uint8Array
  readonly kind: "kernel" | "agent"
  readonly agentVersion: string
  /** 65-byte point from the vTPM's NV */
  readonly mvmPublicKey: Uint8Array
  readonly log: Log
  openStream(handlers: StreamHandlers): Promise<ByteStream>
  /** What READY says. */
  ready(): Fields<"READY">
  onLinked(membership: Membership, keptChannels: readonly Uint8Array[]): void
  onLost(reason: MvmError): void
  onMessage(message: LinkMessage): void
}

/** What a command gets while the link is down. */
export function noMvm(): MvmError {
  return new MvmError("no_mvm", "no MVM answers this agent", {
    hint: "operator: is mvm serve running on the host?",
  })
}

export class LinkClient {
  readonly link: Link
  /** Relayed records; empty at the beginning of each membership. */
  readonly bulk: BulkQueue
  membership: Membership | undefined
  readonly #options: LinkClientOptions
  #stream: ByteStream | undefined
  #hello: { pair: KeyPair; nonce: Uint8Array } | undefined
  #lastHelloMs = -Infinity
  #stopped = false
  #timer: ReturnType<typeof setInterval> | undefined
  #lastAnswerMs = 0
  /** Of records, since the link began. */
  #readBytes = 0
  #saidReadBytes = 0
  readonly #awaiting = new Set<() => void>()

  constructor(options: LinkClientOptions) {
    this.#options = options
    this.link = new Link("guest", (bytes) => this.#stream?.write(bytes), {
      onOpenMessage: (message) => {
        if (message.name === "WELCOME") this.#welcomed(message)
        else if (message.name === "POKE") this.#greet()
      },
      onMessage: (message) => {
        if (message.name === "RECORD") this.#count(message.fields.record.length)
        this.#options.onMessage(message)
      },
      onEpoch: () => {},
      onDesync: () => this.#greet(),
    })
    this.bulk = new BulkQueue({
      ready: () => this.#takesBulk(),
      send: (name, fields) => this.link.send(name, fields),
    })
  }

  /** Lets the MVM know what was read, before more comes than it lets be unread. */
  #count(lengthBytes: number): void {
    this.#readBytes += lengthBytes
    if (this.#readBytes - this.#saidReadBytes < READ_STEP_BYTES) return
    this.#saidReadBytes = this.#readBytes
    this.link.send("READ", { bytes: this.#readBytes })
  }

  /** Whether relayed records may go out now. */
  #takesBulk(): boolean {
    return this.holds(this.membership) && (this.#stream?.backlogBytes ?? Infinity) < STREAM_LOW_BYTES
  }

  /** Opens the stream, and again whenever it ends, until {@link stop}. */
  async run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#live()
      } catch (error) {
        this.#options.log.warn("link_stream", { message: asMvmError(error).message })
      }
      this.#lost(new MvmError("no_mvm", "the link to the MVM was lost"))
      if (!this.#stopped) await Bun.sleep(REOPEN_MS)
    }
  }

  /** Whether `membership` is the one in force: its epoch is the link's. */
  holds(membership: Membership | undefined): membership is Membership {
    const { epoch } = this.link
    return membership !== undefined && epoch !== undefined && equalBytes(membership.epoch, epoch)
  }

  /** Resolves when a membership is in force. @throws MvmError `no_mvm` after `timeoutMs` or when `gone` fires. */
  async linked(timeoutMs: number, gone: AbortSignal): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (!this.holds(this.membership)) {
      const leftMs = deadline - performance.now()
      if (leftMs <= 0 || gone.aborted || this.#stopped) {
        throw noMvm()
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => wake(), Math.min(leftMs, MAX_TIMER_MS))
        const wake = (): void => {
          clearTimeout(timer)
          gone.removeEventListener("abort", wake)
          this.#awaiting.delete(wake)
          resolve()
        }
        gone.addEventListener("abort", wake)
        this.#awaiting.add(wake)
      })
    }
  }

  stop(): void {
    this.#stopped = true
    for (const wake of this.#awaiting) wake()
    this.#stream?.close()
  }

  async #live(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const stream = await this.#options.openStream({
      onData: (chunk) => this.link.receive(chunk),
      onClose: resolve,
      onDrain: () => this.bulk.pump(),
    })
    // While it was opened there was nothing that stop() could close.
    if (this.#stopped) return stream.close()
    this.#stream = stream
    this.#timer = setInterval(() => this.#tick(), HELLO_PERIOD_MS)
    try {
      this.#greet()
      await promise
    } finally {
      clearInterval(this.#timer)
      this.#stream = undefined
    }
  }

  #tick(): void {
    if (this.#hello) return this.#greet()
    const silentMs = performance.now() - this.#lastAnswerMs
    if (silentMs < PING_PERIOD_MS) return
    if (silentMs > PING_PERIOD_MS + 2 * ANSWER_MS) return this.#greet()
    this.link.request("PING", {}, "DONE", { timeoutMs: ANSWER_MS }).then(
      () => (this.#lastAnswerMs = performance.now()),
      () => this.#greet(),
    )
  }

  /**
   * HELLO; what comes too soon after the last one is said at the next tick. Where that one was answered already, what
   * asks for another is older than the answer, or forged.
   */
  #greet(): void {
    const isSoon = performance.now() - this.#lastHelloMs < HELLO_MIN_GAP_MS
    if (isSoon && this.holds(this.membership)) return
    this.#hello ??= { pair: x25519Generate(), nonce: random(32) }
    if (isSoon) return
    this.#lastHelloMs = performance.now()
    this.link.send("HELLO", {
      version: PROTOCOL_VERSION,
      guestNonce: this.#hello.nonce,
      guestShare: this.#hello.pair.publicKey,
      bootId: this.#options.bootId,
      kind: this.#options.kind,
      agent: this.#options.agentVersion,
    })
  }

  /** Trust: only a WELCOME signed by the pinned key over our own nonce and share is believed. */
  #welcomed(message: NamedMessage<"WELCOME">): void {
    const hello = this.#hello
    if (!hello) return
    const { fields } = message
    const transcript = {
      version: fields.version,
      vmUuid: fields.vmUuid,
      vmName: fields.vmName,
      epoch: fields.epoch,
      guestNonce: hello.nonce,
      guestShare: hello.pair.publicKey,
      mvmShare: fields.mvmShare,
      bootId: this.#options.bootId,
      mvmMeasurement: fields.mvmMeasurement,
    }
    if (!p256Verify(this.#options.mvmPublicKey, welcomeMessage(transcript), fields.signature)) {
      this.#options.log.error("welcome_refused", { message: "not signed by the MVM pinned in the vTPM" })
      return
    }
    const keys = linkKeys(x25519Shared(hello.pair.privateKey, fields.mvmShare), transcript)
    this.link.adoptKeys(fields.epoch, keys.toMvm, keys.toGuest)
    for (const key of Object.values(keys)) key.fill(0)
    this.#readBytes = 0
    this.#saidReadBytes = 0
    void this.#prove(fields)
  }

  async #prove(welcome: Fields<"WELCOME">): Promise<void> {
    try {
      const ready = this.#options.ready()
      const settings = await this.link.request("READY", ready, "SETTINGS", { timeoutMs: ANSWER_MS })
      this.#hello?.pair.privateKey.fill(0)
      this.#hello = undefined
      this.#lastAnswerMs = performance.now()
      this.membership = {
        vmUuid: welcome.vmUuid,
        vmName: welcome.vmName,
        epoch: welcome.epoch,
        mvmMeasurement: welcome.mvmMeasurement,
        leaseMs: settings.fields.leaseMs,
        memory: settings.fields.memory,
        enc: settings.fields.enc,
      }
      this.bulk.clear()
      this.#options.onLinked(this.membership, settings.fields.channels)
      for (const wake of this.#awaiting) wake()
    } catch (error) {
      this.#options.log.debug("ready_unanswered", { message: asMvmError(error).message })
    }
  }

  #lost(reason: MvmError): void {
    this.membership = undefined
    this.link.reset(reason)
    this.#options.onLost(reason)
  }
}
