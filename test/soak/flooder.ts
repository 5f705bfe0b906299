/**
 * @module test/soak/flooder
 *
 * A local endpoint whose agent is hostile: it has the endpoint's link to itself and fills it as fast as the MVM reads.
 *
 *   flooder.ts STATE NAME garbage|hello|requests|log|crafted TARGET
 *
 * `log` repeats zeros that no quote covers; `crafted` is a log of ever new paths that adds up: each is extended into
 * PCR 10 before it is said, and quoted when the MVM asks.
 */

import { LinkClient } from "../../src/guest/link-client.ts"
import { EvidenceMaker } from "../../src/guest/evidence.ts"
import { concat, fromHex } from "../../src/lib/bytes.ts"
import { random, sha256 } from "../../src/lib/crypto.ts"
import { Log } from "../../src/lib/log.ts"
import { localPaths } from "../../src/platform/local-paths.ts"
import { connectUnix, type ByteSocket } from "../../src/platform/unix-socket.ts"
import { NO_BINDING } from "../../src/tcb/binding.ts"
import { encodeImaEntry } from "../../src/tcb/measurement/ima-encode.ts"
import { BOOT_AGGREGATE_PCRS, IMA_PCR } from "../../src/tcb/measurement/quote.ts"
import { connectSwtpm } from "../../src/tpm/swtpm-transport.ts"
import { GuestVtpm } from "../../src/guest/vtpm.ts"
import { encodeFrame } from "../../src/wire/frame.ts"
import type { LinkMessage } from "../../src/wire/link.ts"
import { MESSAGES, PROTOCOL_VERSION } from "../../src/wire/messages.ts"
import { encodeMessage } from "../../src/wire/table.ts"

const PROGRAM = { path: "/usr/bin/mvm", digest: new Uint8Array(32), uid: 0 }
/** Enough on the way to keep the MVM reading without a pause. */
const BACKLOG_BYTES = 1 << 20
const BURST = 64
/** The longest path there is in the kernel's log. */
const PATH_BYTES = 4000

const [state = "", name = "", mode = "", target = ""] = process.argv.slice(2)
const paths = localPaths(state, name)

/** Writes `next()` for ever, as fast as it is taken. */
async function pour(socket: ByteSocket, next: () => Uint8Array): Promise<void> {
  while (!socket.closed) {
    while (socket.backlogBytes < BACKLOG_BYTES && !socket.closed) socket.write(next())
    await new Promise<void>((resolve) => {
      socket.handlers.onDrain = resolve
      setTimeout(resolve, 20)
    })
  }
}

async function raw(next: () => Uint8Array): Promise<void> {
  for (;;) {
    const socket = await connectUnix(paths.link, { onData: () => {}, onClose: () => {} }, 64 << 20)
    await pour(socket, next)
  }
}

function garbage(): () => Uint8Array {
  const noise = random(60_000)
  const lie = concat(fromHex("4d564d3101000000" + "0000fff0"), random(4))
  const pieces = [
    noise,
    concat(lie, noise.subarray(0, 500)),
    encodeFrame(noise),
    encodeFrame(noise, { auth: true }),
  ]
  let at = 0
  return () => pieces[at++ % pieces.length]!
}

function hello(): () => Uint8Array {
  const fields = {
    version: PROTOCOL_VERSION,
    guestNonce: random(32),
    guestShare: random(32),
    bootId: random(16),
  }
  const message = encodeMessage(MESSAGES, "HELLO", 0, { ...fields, kind: "agent", agent: "flood" })
  const frame = encodeFrame(message)
  const burst = concat(...Array.from({ length: BURST }, () => frame))
  return () => burst
}

interface Agent {
  readonly client: LinkClient
  readonly vtpm: GuestVtpm
  readonly socket: ByteSocket
}

/** An agent that proved who it is. */
async function join(onMessage: (message: LinkMessage, agent: Agent) => void): Promise<Agent> {
  const boot = await connectUnix(paths.link)
  boot.write(encodeFrame(encodeMessage(MESSAGES, "BOOT", 0, {})))
  await Bun.sleep(2000)
  boot.close()
  const vtpm = await GuestVtpm.open(await connectSwtpm(paths.tpm))
  let socket: ByteSocket | undefined
  const linked = Promise.withResolvers<void>()
  const client: LinkClient = new LinkClient({
    bootId: random(16),
    kind: "agent",
    agentVersion: "flood",
    mvmPublicKey: vtpm.mvmPublicKey,
    log: new Log({ level: "error", format: "text" }),
    openStream: async (handlers) => (socket = await connectUnix(paths.link, handlers, 64 << 20)),
    ready: () => ({ canMap: true, mapping: "flood", channels: [] }),
    onLinked: () => linked.resolve(),
    onLost: () => {},
    onMessage: (message) => onMessage(message, { client, vtpm, socket: socket! }),
  })
  void client.run()
  await linked.promise
  return { client, vtpm, socket: socket! }
}

/** Asks without end. */
async function authenticated(say: (client: LinkClient) => void): Promise<void> {
  const { client, socket } = await join(() => {})
  for (;;) {
    for (let count = 0; count < BURST && socket.backlogBytes < BACKLOG_BYTES; count++) {
      try {
        say(client)
      } catch {
        // The link is just down.
      }
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Programs without end that nobody ever ran, measured as if somebody had. */
async function crafted(): Promise<void> {
  const told: Uint8Array[] = []
  let [toldBytes, keptFrom] = [0, 0]
  // The MVM asks for the log from where its copy ends, which is not far behind.
  const read = (offset: number): Uint8Array => concat(...told).slice(offset - keptFrom)
  const source = {
    kind: "agent" as const,
    read,
    readEvents: () => new Uint8Array(0),
    measure: async () => {},
  }
  let maker: EvidenceMaker | undefined
  // One at a time: PCR 10 stands still while it is quoted.
  let turn: Promise<unknown> = Promise.resolve()
  const { client, vtpm, socket } = await join((message, agent) => {
    if (message.name !== "MEASURE") return
    maker ??= new EvidenceMaker(agent.vtpm, source, agent.client.link)
    const { nonce, logOffset } = message.fields
    const request = { purpose: "periodic" as const, nonce, binding: NO_BINDING, logOffset }
    const answered = turn.then(() =>
      maker?.make(agent.client.membership!, request, (quote) =>
        agent.client.link.send("MEASURED", { quote }, message.requestId),
      ),
    )
    turn = answered.catch(() => {})
  })
  const say = async (path: string, digest: Uint8Array): Promise<void> => {
    const { bytes, extendDigest } = encodeImaEntry({ path, sha256: digest })
    await vtpm.pcrExtend(IMA_PCR, extendDigest)
    told.push(bytes)
    if (client.membership) client.link.send("LOG", { offset: toldBytes, entries: bytes })
    toldBytes += bytes.length
    for (; told.length > 4096; keptFrom += told.shift()!.length);
  }
  await say("boot_aggregate", sha256(...(await vtpm.pcrRead(BOOT_AGGREGATE_PCRS))))
  for (let number = 0; ; number++) {
    while (socket.backlogBytes > BACKLOG_BYTES) await Bun.sleep(1)
    const digest = random(32)
    turn = turn.then(() => say(`/${digest.toHex()}`.padEnd(PATH_BYTES, "x"), digest))
    await turn
  }
}

let id = 1
const REQUEST = {
  target,
  service: "flood",
  role: "send",
  digest: "chain",
  waitMs: 0,
  program: PROGRAM,
} as const

switch (mode) {
  case "garbage":
    await raw(garbage())
    break
  case "hello":
    await raw(hello())
    break
  case "requests":
    await authenticated((client) => client.link.send("ALLOC", { ...REQUEST, share: random(32) }, id++))
    break
  case "crafted":
    await crafted()
    break
  default:
    await authenticated((client) => client.link.send("LOG", { offset: 0, entries: new Uint8Array(40_000) }))
}
