/**
 * @module test/mvm/scripted-member
 *
 * One VM as its root would like it to be: keys and quotes are made in this process, and every word is the test's.
 */

import { answerBinding, requestBinding, NO_BINDING } from "../../src/tcb/binding.ts"
import { GrantOpener, type Grant } from "../../src/tcb/grant.ts"
import { encodeImaEntry } from "../../src/tcb/measurement/ima-encode.ts"
import { evidenceQualifyingData, type EvidenceFields } from "../../src/tcb/measurement/qualifying-data.ts"
import { QUOTED_PCRS } from "../../src/tcb/measurement/quote.ts"
import {
  acceptMessage,
  finMessage,
  openMessage,
  receiptMessage,
  requestMessage,
  transcriptHash,
} from "../../src/channel/transcript.ts"
import { concat, fromHex } from "../../src/lib/bytes.ts"
import { p256Ecdh, p256Sign, random, sha256, x25519Generate, type KeyPair } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { LinkClient, type Membership } from "../../src/guest/link-client.ts"
import type { MvmContext } from "../../src/mvm/context.ts"
import type { Member } from "../../src/mvm/member.ts"
import { connectUnix } from "../../src/platform/unix-socket.ts"
import type { Fields, LinkMessage, MessageName, NamedMessage } from "../../src/wire/link.ts"
import type { Quote } from "../../src/wire/messages.ts"
import { closeLater } from "./scratch-state.ts"

export const RESET_COUNT = 1
const PATIENCE_MS = 10_000
export const PROGRAM = { path: "/usr/bin/pipe", digest: new Uint8Array(32).fill(7), uid: 0 }

export interface MemberKeys {
  identity: KeyPair
  attestation: KeyPair
  sealing: KeyPair
}

export interface HeldChannel {
  readonly id: Uint8Array
  readonly transcript: Uint8Array
  readonly grant: Grant
  readonly leaseMs: number
}

/** One VM, as its root would like it to be. */
export class ScriptedMember {
  readonly mvm: { readonly context: MvmContext }
  /** What the daemon makes of it */
  readonly member: Member
  readonly keys: MemberKeys
  readonly aggregate: Uint8Array
  readonly heard: LinkMessage[] = []
  /** 32 bytes; what it asks for channels with */
  readonly share = x25519Generate().publicKey
  /** Said in READY */
  canMap = true
  /** Named in READY */
  held: { channelId: Uint8Array; transcript: Uint8Array }[] = []
  client!: LinkClient
  readonly #pcrs: Uint8Array[] = QUOTED_PCRS.map(() => new Uint8Array(32))
  readonly #logBytes: Uint8Array
  readonly #socketPath: string
  #clock = 1000n
  #offers = 0

  constructor(mvm: { readonly context: MvmContext }, member: Member, keys: MemberKeys, socketPath: string) {
    this.mvm = mvm
    this.member = member
    this.keys = keys
    this.#socketPath = socketPath
    this.aggregate = sha256(...this.#pcrs.slice(0, 10))
    const entry = encodeImaEntry({ path: "boot_aggregate", sha256: this.aggregate })
    this.#logBytes = entry.bytes
    this.#pcrs[10] = sha256(new Uint8Array(32), entry.extendDigest)
  }

  get name(): string {
    return this.member.record.name
  }

  get membership(): Membership {
    if (!this.client.membership) throw new Error(`${this.name} is not linked`)
    return this.client.membership
  }

  async link(): Promise<void> {
    const linked = Promise.withResolvers<void>()
    const client = new LinkClient({
      bootId: random(16),
      kind: "agent",
      agentVersion: "scripted",
      mvmPublicKey: this.mvm.context.identity.publicKey,
      log: this.mvm.context.log,
      openStream: (handlers) => connectUnix(this.#socketPath, handlers),
      ready: () => ({ canMap: this.canMap, mapping: "test", channels: this.held }),
      onLinked: () => linked.resolve(),
      onLost: () => {},
      onMessage: (message) => {
        this.heard.push(message)
      },
    })
    this.client = client
    void client.run()
    closeLater(() => client.stop())
    await linked.promise
  }

  /** The agent is gone and comes back as another process. */
  async relink(): Promise<void> {
    this.client.stop()
    await until(() => this.member.session === undefined)
    await this.link()
  }

  send<N extends MessageName>(name: N, fields: Fields<N>, requestId = 0): void {
    this.client.link.send(name, fields, requestId)
  }

  /** The next message called `name`, taken off the pile. */
  async hear<N extends MessageName>(name: N): Promise<NamedMessage<N>> {
    await until(() => this.heard.some((message) => message.name === name), `${this.name}: no ${name}`)
    const index = this.heard.findIndex((message) => message.name === name)
    return this.heard.splice(index, 1)[0] as NamedMessage<N>
  }

  /** After this, all that was sent before has been handled. */
  async settled(): Promise<void> {
    await this.client.link.request("PING", {}, "DONE", { timeoutMs: PATIENCE_MS })
  }

  async offer(service = "pipe", role: "send" | "receive" = "receive"): Promise<number> {
    const offerId = ++this.#offers
    await this.client.link.request(
      "OFFER",
      { offerId, service, source: undefined, role, program: PROGRAM },
      "DONE",
      { timeoutMs: PATIENCE_MS },
    )
    return offerId
  }

  quote(evidence: Pick<EvidenceFields, "purpose" | "nonce" | "binding">, pcrs = this.#pcrs): Quote {
    const { vmUuid, epoch } = this.membership
    const extraData = evidenceQualifyingData({ ...evidence, vmUuid, epoch })
    const tail = Buffer.alloc(17)
    tail.writeBigUInt64BE((this.#clock += 1n), 0)
    tail.writeUInt32BE(RESET_COUNT, 8)
    tail[16] = 1
    const attest = concat(
      fromHex(`ff5443478018${"0022"}${"000b"}${"00".repeat(32)}0020`),
      extraData,
      tail,
      fromHex(`${"00".repeat(8)}00000001000b03ff07000020`),
      sha256(...pcrs),
    )
    return { attest, signature: p256Sign(this.keys.attestation.privateKey, attest), pcrs }
  }

  sendLog(offset: number): void {
    if (offset < this.#logBytes.length) {
      this.send("LOG", { offset, entries: this.#logBytes.subarray(offset) })
    }
  }

  /** Answers MEASURE honestly. */
  async measured(): Promise<void> {
    const { fields, requestId } = await this.hear("MEASURE")
    this.sendLog(fields.logOffset)
    const quote = this.quote({ purpose: "periodic", nonce: fields.nonce, binding: NO_BINDING })
    this.send("MEASURED", { quote }, requestId)
  }

  alloc(target: string, change: Partial<Fields<"ALLOC">> = {}): Promise<NamedMessage<"ALLOCATED">> {
    return this.client.link.request(
      "ALLOC",
      {
        target,
        service: "pipe",
        role: "send",
        digest: "chain",
        waitMs: 0,
        program: PROGRAM,
        share: this.share,
        ...change,
      },
      "ALLOCATED",
      { timeoutMs: PATIENCE_MS },
    )
  }

  async openGrant(channelId: Uint8Array, context: Uint8Array, sealed: Uint8Array): Promise<Grant> {
    const { privateKey, publicKey } = this.keys.sealing
    const key = {
      zgen: async (point: Uint8Array) => p256Ecdh(privateKey, point),
      recipientPublic65: publicKey,
    }
    const { vmUuid: recipientUuid, enc } = this.membership
    const opener = await GrantOpener.begin(key, { recipientUuid, epoch: this.client.link.epoch! }, enc)
    return opener.open({ channelId, context }, sealed)
  }

  /** REQUEST, signed and measured. Resolves or rejects with the MVM's answer. */
  async request(
    allocated: Fields<"ALLOCATED">,
    service = "pipe",
  ): Promise<{ opened: Promise<NamedMessage<"OPENED">>; share: Uint8Array; grant: Grant }> {
    const { channelId, nonce, targetUuid, sealed, logOffset } = allocated
    const grant = await this.openGrant(channelId, sha256(nonce), sealed)
    const { share } = this
    const { epoch } = this.membership
    const { laddress } = grant
    const asked = requestMessage({ laddress, targetUuid, service, share, nonce, epoch, program: PROGRAM })
    this.sendLog(logOffset)
    const quote = this.quote({ purpose: "request", nonce, binding: requestBinding(asked) })
    const opened = this.client.link.request(
      "REQUEST",
      { channelId, signature: this.sign(asked), quote },
      "OPENED",
      { timeoutMs: PATIENCE_MS },
    )
    opened.catch(() => {})
    return { opened, share, grant }
  }

  sign(message: Uint8Array): Uint8Array {
    return p256Sign(this.keys.identity.privateKey, message)
  }

  /** CHALLENGE, answered honestly. */
  async prove(): Promise<{ challenge: Fields<"CHALLENGE">; share: Uint8Array }> {
    const { fields: challenge, requestId } = await this.hear("CHALLENGE")
    const share = x25519Generate().publicKey
    const { channelId, nonce } = challenge
    const binding = answerBinding({
      channelId,
      askerShare: challenge.share,
      answererShare: share,
      program: PROGRAM,
    })
    this.sendLog(challenge.logOffset)
    this.send(
      "EVIDENCE",
      { channelId, share, quote: this.quote({ purpose: "answer", nonce, binding }) },
      requestId,
    )
    return { challenge, share }
  }

  /** GRANT, accepted honestly. */
  async accept(proven: { challenge: Fields<"CHALLENGE">; share: Uint8Array }): Promise<HeldChannel> {
    const { fields, requestId } = await this.hear("GRANT")
    const { channelId, decision, leaseMs } = fields
    const grant = await this.openGrant(channelId, sha256(decision), fields.sealed)
    const transcript = transcriptHash({
      decision,
      laddress: grant.laddress,
      service: proven.challenge.service,
      askerShare: proven.challenge.share,
      answererShare: proven.share,
    })
    this.send("ACCEPT", { channelId, signature: this.sign(acceptMessage(transcript)) }, requestId)
    return { id: channelId, transcript, grant, leaseMs }
  }

  end(
    name: "FIN" | "RECEIPT",
    channelId: Uint8Array,
    change: Partial<Fields<"FIN">> = {},
  ): Promise<NamedMessage<"DONE">> {
    const said = {
      channelId,
      direction: 0,
      lengthBytes: 10,
      records: 3,
      digest: new Uint8Array(32).fill(1),
      content: undefined,
      ...change,
    }
    const signature = change.signature ?? this.sign(name === "FIN" ? finMessage(said) : receiptMessage(said))
    return this.client.link.request(name, { ...said, signature }, "DONE", { timeoutMs: PATIENCE_MS })
  }
}

/** A whole opening between two honest ends. */
export async function openBetween(asker: ScriptedMember, answerer: ScriptedMember): Promise<HeldChannel> {
  await answerer.offer()
  const { fields } = await asker.alloc(answerer.name)
  const { opened } = await asker.request(fields)
  const held = await answerer.accept(await answerer.prove())
  const { acceptSignature } = (await opened).fields
  asker.sign(openMessage(held.transcript, acceptSignature))
  return held
}

export async function until(ready: () => boolean, what = "it did not come"): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  while (!ready()) {
    if (performance.now() > deadline) throw new Error(what)
    await Bun.sleep(2)
  }
}

/** The MvmError that `promise` ends with. */
export async function refusal(promise: Promise<unknown>): Promise<MvmError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof MvmError) return error
    throw error
  }
  throw new Error("it was not refused")
}
