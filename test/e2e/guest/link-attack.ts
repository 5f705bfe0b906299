/**
 * @module test/e2e/guest/link-attack
 *
 * Runs as root in a VM in place of its agent, which was stopped: it has the VM's own port and vTPM, and says on them
 * what an agent never would. Prints one JSON object of what became of it.
 *
 *   bun link-attack.js garbage SECONDS
 *   bun link-attack.js claims CHANNEL-ID     of a channel between two others
 *   bun link-attack.js flood TARGET COUNT
 *   bun link-attack.js hold                  offers, proves itself, takes the grant, and never accepts
 *   bun link-attack.js replay TARGET         where nothing waits; stays until /tmp/replay-over is there
 *   bun link-attack.js inject TARGET CHANNEL-ID    frames about that channel in what it sends on a relay
 *   bun link-attack.js forge CHANNEL-ID FILE       the same frames as a file
 *   bun link-attack.js lies TARGET           where something waits
 */

import { closeSync, constants, existsSync, openSync, writeFileSync, writeSync } from "node:fs"
import { concat, fromHex, toHex } from "../../../src/lib/bytes.ts"
import { random, sha256, x25519Generate } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { Log } from "../../../src/lib/log.ts"
import { EvidenceMaker } from "../../../src/guest/evidence.ts"
import { LinkClient } from "../../../src/guest/link-client.ts"
import { kernelLog } from "../../../src/guest/measurement-source.ts"
import { GuestVtpm } from "../../../src/guest/vtpm.ts"
import { findVirtioPort, openVirtioPort } from "../../../src/platform/virtio-port.ts"
import { answerBinding, NO_BINDING, requestBinding } from "../../../src/tcb/binding.ts"
import { evidenceQualifyingData } from "../../../src/tcb/measurement/qualifying-data.ts"
import { openTpmDevice } from "../../../src/tpm/device-transport.ts"
import { HEAD_WORDS, KIND, kindWordOf } from "../../../src/channel/record.ts"
import { recordOf } from "../../../src/channel/record-queue.ts"
import { requestMessage } from "../../../src/channel/transcript.ts"
import { GrantOpener } from "../../../src/tcb/grant.ts"
import { encodeFrame } from "../../../src/wire/frame.ts"
import type { LinkMessage } from "../../../src/wire/link.ts"
import type { Quote } from "../../../src/wire/messages.ts"
import { forgedFrames } from "./forged-frames.ts"

const PATIENCE_MS = 20_000
const PROGRAM = { path: "/usr/bin/mvm", digest: new Uint8Array(32), uid: 0 }

const [mode = "", ...words] = process.argv.slice(2)
const port = findVirtioPort("org.mvm.0") ?? ""
const counts: Record<string, number> = {}
/** How an end of VMs says that it can use shared memory, and which channel it says is its own. */
interface Pretence {
  readonly canMap: boolean
  readonly claimed: Uint8Array | undefined
}

const count = (what: string): void => void (counts[what] = (counts[what] ?? 0) + 1)

async function main(): Promise<unknown> {
  if (mode === "garbage") return garbage(Number(words[0]) * 1000)
  if (mode === "forge") return writeFileSync(words[1]!, forgedFrames(fromHex(words[0]!)))
  const claimed = mode === "claims" ? fromHex(words[0]!) : undefined
  const evil = await Evil.join({ claimed, canMap: mode !== "inject" })
  switch (mode) {
    case "claims":
      return claims(evil, fromHex(words[0]!))
    case "flood":
      return flood(evil, words[0]!, Number(words[1]))
    case "hold":
      return hold(evil)
    case "replay":
      return replay(evil, words[0]!)
    case "inject":
      return inject(evil, words[0]!, fromHex(words[1]!))
    default:
      return lies(evil, words[0]!)
  }
}

/** An agent's place, with a tap on what leaves it. */
class Evil {
  readonly sent: Uint8Array[] = []
  readonly heard: LinkMessage[] = []
  readonly vtpm: GuestVtpm
  readonly evidence: EvidenceMaker
  readonly client: LinkClient
  kept = 0
  /** Bytes as they are, around everything that an agent keeps to. */
  raw: (bytes: Uint8Array) => void = () => {}
  #linked = Promise.withResolvers<void>()

  static async join(pretence: Pretence): Promise<Evil> {
    const evil = new Evil(await GuestVtpm.open(await openTpmDevice()), pretence)
    void evil.client.run()
    await evil.#linked.promise
    return evil
  }

  private constructor(vtpm: GuestVtpm, { canMap, claimed }: Pretence) {
    this.vtpm = vtpm
    this.client = new LinkClient({
      bootId: random(16),
      kind: "kernel",
      agentVersion: "attack",
      mvmPublicKey: vtpm.mvmPublicKey,
      log: new Log({ level: "error", format: "text" }),
      openStream: async (handlers) => {
        const stream = openVirtioPort(port, handlers)
        this.raw = (bytes) => stream.write(bytes)
        return {
          get backlogBytes() {
            return stream.backlogBytes
          },
          write: (bytes) => {
            this.sent.push(bytes.slice())
            stream.write(bytes)
          },
          close: () => stream.close(),
        }
      },
      ready: () => ({
        canMap,
        mapping: "attack",
        channels: claimed ? [{ channelId: claimed, transcript: random(32) }] : [],
      }),
      onLinked: (_membership, kept) => {
        this.kept = kept.length
        this.#linked.resolve()
      },
      onLost: () => count("lost"),
      onMessage: (message) => {
        this.heard.push(message)
        if (message.name === "MEASURE") void this.#measured(message.requestId, message.fields)
      },
    })
    this.evidence = new EvidenceMaker(vtpm, kernelLog(), this.client.link)
  }

  get me() {
    return this.client.membership!
  }

  /** Honest, so that the VM stays trusted while its agent is not itself. */
  async #measured(
    requestId: number,
    { nonce, logOffset }: { nonce: Uint8Array; logOffset: number },
  ): Promise<void> {
    const request = { purpose: "periodic" as const, nonce, binding: NO_BINDING, logOffset }
    await this.evidence.make(this.me, request, (quote) =>
      this.client.link.send("MEASURED", { quote }, requestId),
    )
  }

  alloc(target: string, waitMs: number, share = x25519Generate().publicKey) {
    const fields = {
      target,
      service: "default",
      role: "send" as const,
      digest: "chain" as const,
      waitMs,
      program: PROGRAM,
    }
    return this.client.link.request("ALLOC", { ...fields, share }, "ALLOCATED", {
      timeoutMs: waitMs + PATIENCE_MS,
    })
  }

  /** Asks for a channel as an agent does, but for the service that is signed and what `forge` makes of the quote. */
  async open(target: string, service: string, forge: (quote: Quote) => Quote | Promise<Quote>) {
    const { link } = this.client
    const share = x25519Generate().publicKey
    const { fields } = await this.alloc(target, 60_000, share)
    const { channelId, nonce, targetUuid, sealed, logOffset } = fields
    const { epoch, vmUuid, enc } = this.me
    const grants = await GrantOpener.begin(this.vtpm.recipient, { recipientUuid: vmUuid, epoch }, enc)
    const { laddress } = grants.open({ channelId, context: sha256(nonce) }, sealed)
    const asked = requestMessage({ laddress, targetUuid, service, share, nonce, epoch, program: PROGRAM })
    const signature = await this.vtpm.sign(asked)
    const binding = requestBinding(asked)
    const quote = await this.vtpm.quote(
      evidenceQualifyingData({ purpose: "request", nonce, binding, vmUuid, epoch }),
    )
    link.send("LOG", { offset: logOffset, entries: kernelLog().read(logOffset).subarray(0, 48_000) })
    const said = { channelId, signature, quote: await forge(quote) }
    return link.request("REQUEST", said, "OPENED", { timeoutMs: PATIENCE_MS })
  }

  async hear(name: string): Promise<LinkMessage | undefined> {
    const deadline = performance.now() + PATIENCE_MS
    while (performance.now() < deadline) {
      const at = this.heard.findIndex((message) => message.name === name)
      if (at >= 0) return this.heard.splice(at, 1)[0]
      await Bun.sleep(20)
    }
    return undefined
  }

  /** Whether the MVM still answers. */
  async answers(): Promise<boolean> {
    const asked = this.client.link.request("PING", {}, "DONE", { timeoutMs: PATIENCE_MS })
    return asked.then(
      () => true,
      () => false,
    )
  }
}

/** Noise, false beginnings and false lengths, as fast as the port takes them. */
async function garbage(forMs: number): Promise<unknown> {
  const fd = openSync(port, constants.O_WRONLY)
  const noise = random(60_000)
  const lie = concat(fromHex("4d564d310100000000" + "00fff0"), random(4))
  const pieces = [
    noise,
    concat(lie, noise.subarray(0, 1000)),
    encodeFrame(noise),
    encodeFrame(noise, { auth: true }),
  ]
  const until = performance.now() + forMs
  let bytes = 0
  for (let at = 0; performance.now() < until; at++) bytes += writeSync(fd, pieces[at % pieces.length]!)
  closeSync(fd)
  return { bytes }
}

/** In the name of others: a channel that is two other VMs'. */
async function claims(evil: Evil, channelId: Uint8Array): Promise<unknown> {
  const { link } = evil.client
  const end = { channelId, direction: 0, lengthBytes: 1, records: 1, digest: random(32), content: undefined }
  link.send("KICK", { channelId })
  link.send("CREDIT", { channelId, taken: 1 })
  link.send("CLOSE", { channelId })
  link.send("ABORT", { channelId, code: "aborted", message: "mine" })
  const told: string[] = []
  for (const name of ["FIN", "RECEIPT"] as const) {
    const said = { ...end, signature: await evil.vtpm.sign(random(32)) }
    told.push(await refusal(link.request(name, said, "DONE", { timeoutMs: PATIENCE_MS })))
  }
  return { name: evil.me.vmName, kept: evil.kept, told, answers: await evil.answers() }
}

async function flood(evil: Evil, target: string, requests: number): Promise<unknown> {
  const { link } = evil.client
  const waiting: Promise<void>[] = []
  for (let at = 0; at < requests; at++) {
    const offer = {
      offerId: at,
      service: `s${at}`,
      source: undefined,
      role: "receive" as const,
      program: PROGRAM,
    }
    const asked =
      at % 3 === 0
        ? evil.alloc(target, 60_000, random(32))
        : at % 3 === 1
          ? evil.alloc(target, 0, random(32))
          : link.request("OFFER", offer, "DONE", { timeoutMs: PATIENCE_MS })
    waiting.push(
      asked.then(
        ({ name }) => count(name),
        (error: MvmError) => count(error.code),
      ),
    )
    // The port takes no more at once than its buffers hold.
    if (at % 64 === 63) await Bun.sleep(1)
  }
  await Promise.all(waiting)
  return { counts, answers: await until(() => evil.answers()) }
}

/** Takes a grant and does nothing with it. */
async function hold(evil: Evil): Promise<unknown> {
  const { link } = evil.client
  const offer = {
    offerId: 1,
    service: "default",
    source: undefined,
    role: "receive" as const,
    program: PROGRAM,
  }
  await link.request("OFFER", offer, "DONE", { timeoutMs: PATIENCE_MS })
  console.log("offered")
  const challenge = await evil.hear("CHALLENGE")
  if (challenge?.name !== "CHALLENGE") return { held: false }
  const { channelId, nonce, logOffset, share } = challenge.fields
  const own = x25519Generate().publicKey
  const binding = answerBinding({ channelId, askerShare: share, answererShare: own, program: PROGRAM })
  await evil.evidence.make(evil.me, { purpose: "answer", nonce, binding, logOffset }, (quote) =>
    link.send("EVIDENCE", { channelId, share: own, quote }, challenge.requestId),
  )
  const grant = await evil.hear("GRANT")
  const ended = await evil.hear("ABORT")
  return { held: grant !== undefined, told: ended?.name ?? null, answers: await evil.answers() }
}

/** Frames of this epoch a second time, and those of the last one in the next: any that counted would be seen. */
async function replay(evil: Evil, target: string): Promise<unknown> {
  const { link } = evil.client
  const offer = { offerId: 1, service: "once", source: undefined, role: "receive" as const, program: PROGRAM }
  await link.request("OFFER", offer, "DONE", { timeoutMs: PATIENCE_MS })
  link.send("WITHDRAW", { offerId: 1 })
  const first = await refusal(evil.alloc(target, 0))
  const captured = evil.sent.slice()
  const again = async (end: Evil): Promise<boolean> => {
    for (const frame of captured) end.raw(frame)
    // What is out of order may cost the link its epoch; it costs nothing else.
    return until(() => end.answers())
  }
  const answers = [await again(evil)]
  const epochs = [toHex(evil.me.epoch)]
  evil.client.stop()
  const next = await Evil.join({ claimed: undefined, canMap: true })
  epochs.push(toHex(next.me.epoch))
  answers.push(await again(next))
  writeFileSync("/tmp/replayed", "")
  await until(async () => existsSync("/tmp/replay-over"))
  return { replayed: 2 * captured.length, first, answers, epochs: new Set(epochs).size }
}

/** Opens a relayed channel as it should, and sends records on it that hold whole frames about somebody else's. */
async function inject(evil: Evil, target: string, channelId: Uint8Array): Promise<unknown> {
  const opened = await evil.open(target, "default", (quote) => quote)
  const frames = forgedFrames(channelId)
  const head = new Uint32Array(HEAD_WORDS)
  head.set([frames.length, kindWordOf(KIND.HANDSHAKE, 0)])
  const record = recordOf(head, frames)
  evil.client.link.send("RECORD", { channelId: opened.fields.channelId, offset: 0, record })
  const ended = await evil.hear("ABORT")
  return { opened: opened.name, told: ended?.name ?? null, answers: await evil.answers() }
}

/** Evidence that is none, one way after the other. */
async function lies(evil: Evil, target: string): Promise<unknown> {
  const { link } = evil.client
  const told: Record<string, string> = {}
  const say = (offset: number, entries: Uint8Array): void => link.send("LOG", { offset, entries })
  say(2 ** 50, random(100))
  say(0, new Uint8Array(40_000))
  told["after lies about the log's offset and bytes"] = String(await evil.answers())
  told["a request signed for another service"] = await refusal(evil.open(target, "other", (quote) => quote))
  const changed = async (quote: Quote): Promise<Quote> => {
    const attest = quote.attest.slice()
    attest.set(sha256(new Uint8Array(1)), attest.length - 32)
    return { ...quote, attest, signature: await evil.vtpm.sign(attest) }
  }
  told["an attest changed and signed with the identity key"] = await refusal(
    evil.open(target, "default", changed),
  )
  told["the next honest request"] = await refusal(evil.alloc(target, 60_000))
  return { told }
}

async function refusal(asked: Promise<LinkMessage>): Promise<string> {
  return asked.then(
    ({ name }) => name,
    (error: MvmError) => error.code,
  )
}

async function until(ready: () => Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < 30; tries++) {
    if (await ready()) return true
    await Bun.sleep(500)
  }
  return false
}

console.log(JSON.stringify(await main()))
process.exit(0)
